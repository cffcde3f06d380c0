// What packetdrill (github.com/google/packetdrill) asks of a shared object that it tests by
// --so_filename: one exported function, which fills in a table of call backs.
//
// The layout is packetdrill's: one pointer of ours, then 32 functions in this order, each of which is
// given that pointer first. The functions are those of POSIX and Linux by name, arguments, results
// and errno, but for the four that stand for the network and the clock:
//
//   netdev_send     a packet (from its IP header on) arrives at the stack
//   netdev_receive  waits for the next packet that the stack sends; its length in *length, 0 when none
//                   will ever come, and the time at which it was sent in microseconds
//   usleep          time passes
//   gettimeofday    what time it is
//
// A call that a script expects to block is made on a second thread.
#ifndef SLUICE_TESTS_PACKETDRILL_INTERFACE_H_
#define SLUICE_TESTS_PACKETDRILL_INTERFACE_H_

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>

extern "C" {

struct PacketdrillInterface {
  void* self;
  void (*free)(void*);
  int (*socket)(void*, int domain, int type, int protocol);
  int (*bind)(void*, int fd, const sockaddr*, socklen_t);
  int (*listen)(void*, int fd, int backlog);
  int (*accept)(void*, int fd, sockaddr*, socklen_t*);
  int (*connect)(void*, int fd, const sockaddr*, socklen_t);
  ssize_t (*read)(void*, int fd, void*, size_t);
  ssize_t (*readv)(void*, int fd, const iovec*, int);
  ssize_t (*recv)(void*, int fd, void*, size_t, int flags);
  ssize_t (*recvfrom)(void*, int fd, void*, size_t, int flags, sockaddr*, socklen_t*);
  ssize_t (*recvmsg)(void*, int fd, msghdr*, int flags);
  ssize_t (*write)(void*, int fd, const void*, size_t);
  ssize_t (*writev)(void*, int fd, const iovec*, int);
  ssize_t (*send)(void*, int fd, const void*, size_t, int flags);
  ssize_t (*sendto)(void*, int fd, const void*, size_t, int flags, const sockaddr*, socklen_t);
  ssize_t (*sendmsg)(void*, int fd, const msghdr*, int flags);
  int (*fcntl)(void*, int fd, int command, ...);
  int (*ioctl)(void*, int fd, unsigned long request, ...);
  int (*close)(void*, int fd);
  int (*shutdown)(void*, int fd, int how);
  int (*getsockopt)(void*, int fd, int level, int name, void*, socklen_t*);
  int (*setsockopt)(void*, int fd, int level, int name, const void*, socklen_t);
  int (*poll)(void*, pollfd*, nfds_t, int timeout);
  int (*netdev_send)(void*, const void*, size_t);
  int (*netdev_receive)(void*, void*, size_t* length, long long* usecs);
  int (*usleep)(void*, useconds_t);
  int (*gettimeofday)(void*, timeval*, struct timezone*);
  int (*epoll_create)(void*, int size);
  int (*epoll_ctl)(void*, int epfd, int op, int fd, epoll_event*);
  int (*epoll_wait)(void*, int epfd, epoll_event*, int max, int timeout);
  int (*pipe)(void*, int fds[2]);
  ssize_t (*splice)(void*, int in, loff_t*, int out, loff_t*, size_t, unsigned flags);
};
static_assert(sizeof(PacketdrillInterface) == 33 * sizeof(void*));

void packetdrill_interface_init(const char* flags, PacketdrillInterface* interface);

}  // extern "C"

#endif  // SLUICE_TESTS_PACKETDRILL_INTERFACE_H_
