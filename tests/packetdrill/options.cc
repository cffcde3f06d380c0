// Socket options, poll and epoll of the sockets in sockets.h.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "packetdrill/sockets.h"

namespace sluice::test {

using transport::Recovery;
using transport::SocketError;
using transport::Tcb;
using transport::TcpState;

namespace {

constexpr int kSolTcp = 6;

// Linux' numbers of the states (include/net/tcp_states.h).
uint8_t LinuxState(TcpState s) {
  constexpr uint8_t kNumbers[] = {7, 2, 3, 1, 4, 5, 8, 11, 9, 6};
  return kNumbers[static_cast<size_t>(s)];
}

uint32_t Segments(uint64_t bytes, uint32_t mss) {
  return static_cast<uint32_t>((bytes + mss - 1) / std::max(mss, 1u));
}

int Give(int value, void* out, socklen_t* length) {
  std::memcpy(out, &value, std::min<size_t>(sizeof(value), *length));
  *length = sizeof(value);
  return 0;
}

}  // namespace

int Sockets::FillTcpInfo(Entry& e, void* value, socklen_t* length) {
  tcp_info info{};
  const Tcb* const t = TcbOf(e);
  if (t == nullptr) {
    info.tcpi_state = e.listening ? 10 : 7;
  } else {
    const uint32_t mss = t->mss;
    info.tcpi_state = LinuxState(t->state);
    const bool disorder = t->scoreboard.sacked_segments() > 0 || t->dup_acks > 0;
    switch (t->recovery) {
      case Recovery::kOpen: info.tcpi_ca_state = disorder ? 1 : 0; break;
      case Recovery::kReduced: info.tcpi_ca_state = 2; break;
      case Recovery::kRecovery: info.tcpi_ca_state = 3; break;
      case Recovery::kLoss: info.tcpi_ca_state = 4; break;
    }
    info.tcpi_retransmits = t->timeouts_in_a_row;
    info.tcpi_probes = t->persist_backoff;
    info.tcpi_backoff = t->rtt.backoff();
    info.tcpi_options = static_cast<uint8_t>((t->ts_enabled ? 1 : 0) | (t->sack_enabled ? 2 : 0) |
                                             (t->snd_wnd_shift + t->rcv_wnd_shift > 0 ? 4 : 0) |
                                             (t->ecn_enabled ? 8 : 0));
    info.tcpi_snd_wscale = t->snd_wnd_shift & 15;
    info.tcpi_rcv_wscale = t->rcv_wnd_shift & 15;
    info.tcpi_rto = static_cast<uint32_t>(t->rtt.rto() / Micros(1));
    info.tcpi_snd_mss = mss;
    info.tcpi_rcv_mss = t->rcv_mss;
    info.tcpi_unacked = t->scoreboard.count();
    info.tcpi_sacked = t->sack_enabled ? t->scoreboard.sacked_segments() : t->dup_acks;
    info.tcpi_lost = Segments(t->scoreboard.lost_bytes(), mss);
    info.tcpi_retrans = Segments(t->scoreboard.retransmitted_bytes(), mss);
    info.tcpi_pmtu = t->path_mtu;
    info.tcpi_rtt = static_cast<uint32_t>(t->rtt.srtt() / Micros(1));
    info.tcpi_rttvar = static_cast<uint32_t>(t->rtt.rttvar() / Micros(1));
    const uint32_t ssthresh = t->congestion.ssthresh();
    info.tcpi_snd_ssthresh = ssthresh >= transport::CongestionControl::kInfinite
                                 ? INT_MAX : ssthresh / std::max(mss, 1u);
    info.tcpi_snd_cwnd = t->congestion.cwnd() / std::max(mss, 1u);
    info.tcpi_advmss = t->advertised_mss;
    info.tcpi_reordering = 3;
    info.tcpi_rcv_space = t->rcv_buffer;
    info.tcpi_notsent_bytes = t->Unsent();
    info.tcpi_snd_wnd = t->snd_wnd;
    const Nanos now = machine_.now();
    const auto micros = [](Nanos n) { return static_cast<uint64_t>(n / Micros(1)); };
    info.tcpi_last_data_recv = static_cast<uint32_t>((now - t->last_data_received) / Millis(1));
    info.tcpi_busy_time = micros(t->sending.Busy(now));
    info.tcpi_rwnd_limited = micros(t->sending.Time(transport::Sending::kPeerWindow, now));
    info.tcpi_sndbuf_limited = micros(t->sending.Time(transport::Sending::kSendBuffer, now));
  }
  std::memset(value, 0, *length);
  std::memcpy(value, &info, std::min<size_t>(sizeof(info), *length));
  return 0;
}

int Sockets::GetOption(int fd, int level, int name, void* value, socklen_t* length) {
  Entry* const e = Find(fd);
  if (e == nullptr) return Fail(EBADF);
  const Tcb* const t = TcbOf(*e);
  if (level == SOL_SOCKET) {
    switch (name) {
      case SO_ERROR: return Give(TakeError(*e), value, length);
      case SO_SNDBUF: return Give(static_cast<int>(e->send_buffer), value, length);
      case SO_RCVBUF: return Give(static_cast<int>(e->receive_buffer), value, length);
      case SO_KEEPALIVE: return Give(e->options.keepalive ? 1 : 0, value, length);
      case SO_MEMINFO:
        std::memset(value, 0, *length);
        return 0;
      default: return Fail(ENOPROTOOPT);
    }
  }
  if (level != kSolTcp) return Fail(ENOPROTOOPT);
  switch (name) {
    case TCP_INFO: return FillTcpInfo(*e, value, length);
    case TCP_CC_INFO:
      *length = 0;
      return 0;
    case TCP_NODELAY: return Give(e->options.no_delay ? 1 : 0, value, length);
    case TCP_MAXSEG:
      // Linux: before the handshake what the program wants, else what a segment carries.
      return Give(t != nullptr && IsSynchronized(t->state) ? t->mss
                  : e->options.max_segment != 0            ? e->options.max_segment : 536,
                  value, length);
    case TCP_USER_TIMEOUT:
      return Give(static_cast<int>(e->options.user_timeout / Millis(1)), value, length);
    case TCP_NOTSENT_LOWAT:
      return Give(static_cast<int>(e->options.not_sent_low_water), value, length);
    default: return Fail(ENOPROTOOPT);
  }
}

int Sockets::TcpOption(Entry& e, int name, int64_t value) {
  transport::TcpSocketOptions& o = e.options;
  switch (name) {
    case TCP_NODELAY: o.no_delay = value != 0; return 0;
    case TCP_CORK: o.cork = value != 0; return 0;
    case TCP_MAXSEG:
      if (value != 0 && (value < 88 || value > 32767)) return EINVAL;  // tcp(7)
      o.max_segment = static_cast<uint16_t>(value);
      return 0;
    case TCP_USER_TIMEOUT:
      if (value < 0) return EINVAL;
      o.user_timeout = Millis(value);
      return 0;
    case TCP_NOTSENT_LOWAT: o.not_sent_low_water = static_cast<uint32_t>(value); return 0;
    case TCP_KEEPIDLE: o.keepalive_idle = Seconds(value); return 0;
    case TCP_KEEPINTVL: o.keepalive_interval = Seconds(value); return 0;
    case TCP_KEEPCNT: o.keepalive_probes = static_cast<uint8_t>(value); return 0;
    case TCP_INQ:
      if (value != 0 && value != 1) return EINVAL;
      e.inq = value != 0;
      return 0;
    default: return ENOPROTOOPT;
  }
}

int Sockets::SetOption(int fd, int level, int name, const void* value, socklen_t length) {
  Entry* const e = Find(fd);
  if (e == nullptr) return Fail(EBADF);
  int number = 0;
  std::memcpy(&number, value, std::min<size_t>(sizeof(number), length));
  int error = 0;
  if (level == SOL_SOCKET) {
    switch (name) {
      case SO_REUSEADDR:
      case SO_REUSEPORT:
      case SO_MARK:
        return 0;
      case SO_SNDBUF:
        e->send_buffer = 2 * static_cast<uint32_t>(number);
        e->options.send_buffer_max = e->send_buffer;
        break;
      case SO_RCVBUF:
        e->receive_buffer = 2 * static_cast<uint32_t>(number);
        e->options.receive_buffer_max = e->receive_buffer;
        break;
      case SO_KEEPALIVE:
        e->options.keepalive = number != 0;
        break;
      case SO_LINGER: {
        linger l{};
        std::memcpy(&l, value, std::min<size_t>(sizeof(l), length));
        e->options.reset_on_close = l.l_onoff != 0 && l.l_linger == 0;
        break;
      }
      default: error = ENOPROTOOPT;
    }
  } else if (level == kSolTcp) {
    error = TcpOption(*e, name, number);
  } else {
    error = ENOPROTOOPT;
  }
  if (error != 0) return Fail(error);
  if (e->listening) machine_.tcp().SetListenerOptions(e->listener, e->options);
  if (e->socket.valid()) {
    // Linux: TCP_NODELAY lets what is corked go, once.
    const bool uncork = level == kSolTcp && name == TCP_NODELAY && number != 0 && e->options.cork;
    if (uncork) {
      transport::TcpSocketOptions open = e->options;
      open.cork = false;
      machine_.tcp().SetOptions(e->socket, open, machine_.now());
    }
    machine_.tcp().SetOptions(e->socket, e->options, machine_.now());
  }
  return 0;
}

// --- Readiness ---

bool Sockets::Writable(Entry& e) {
  const Tcb* const t = TcbOf(e);
  if (t == nullptr || !IsSynchronized(t->state)) return t != nullptr && t->error != SocketError::kNone;
  // Linux' poll looks at half of the low-water mark, as the stack's OnWritable does.
  const uint64_t mark = e.options.not_sent_low_water != 0
                            ? e.options.not_sent_low_water
                            : machine_.tunables().tcp.not_sent_low_water;
  if (mark != transport::kNoLowWater && uint64_t{t->Unsent()} * 2 >= mark) return t->fin_queued;
  return t->fin_queued || machine_.tcp().SendRoom(e.socket) > 0;
}

uint32_t Sockets::Events(Entry& e) {
  if (e.listening) return machine_.tcp().Acceptable(e.listener) ? POLLIN | POLLRDNORM : 0u;
  const Tcb* const t = TcbOf(e);
  if (t == nullptr) return POLLOUT | POLLHUP;
  uint32_t events = 0;
  const SocketError readable = Readable(e);
  if (readable != SocketError::kWouldBlock && readable != SocketError::kNotConnected) {
    events |= POLLIN | POLLRDNORM;
  }
  if (Writable(e)) events |= POLLOUT | POLLWRNORM;
  if (t->error != SocketError::kNone && !e.error_told) events |= POLLERR;
  if (t->fin_received || e.read_shutdown) events |= POLLRDHUP;
  if (t->state == TcpState::kClosed ||
      ((t->fin_received || e.read_shutdown) && t->fin_queued)) {
    events |= POLLHUP;
  }
  return events;
}

int Sockets::Poll(Held lock, std::span<pollfd> fds, int timeout) {
  const auto ready = [&] {
    int count = 0;
    for (pollfd& p : fds) {
      Entry* const e = Find(p.fd);
      const uint32_t wanted = static_cast<uint16_t>(p.events) | POLLERR | POLLHUP;
      p.revents = e == nullptr ? short{POLLNVAL} : static_cast<short>(Events(*e) & wanted);
      count += p.revents != 0 ? 1 : 0;
    }
    return count;
  };
  if (ready() == 0 && timeout != 0) {
    machine_.WaitFor(lock, [&] { return ready() > 0; },
                     timeout < 0 ? Nanos::Max() : Millis(timeout));
  }
  return ready();
}

void Sockets::Mark(transport::TcpSocket socket, uint32_t events) {
  for (auto& [fd, e] : sockets_) {
    if (e.socket != socket) continue;
    e.edges |= events;
    if ((events & EPOLLOUT) != 0) e.writable_seen = true;
    for (auto& [epfd, watches] : epolls_) {
      const auto it = watches.find(fd);
      if (it != watches.end()) it->second.told &= ~events;
    }
  }
}

void Sockets::OnAcceptable(transport::TcpListenerId listener, Nanos) {
  for (auto& [fd, e] : sockets_) {
    if (!e.listening || e.listener != listener) continue;
    for (auto& [epfd, watches] : epolls_) {
      const auto it = watches.find(fd);
      if (it != watches.end()) it->second.told &= ~uint32_t{EPOLLIN};
    }
  }
}

int Sockets::EpollCreate() {
  const int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (fd >= 0) epolls_[fd];
  return fd;
}

int Sockets::EpollControl(int epfd, int op, int fd, epoll_event* event) {
  const auto it = epolls_.find(epfd);
  if (it == epolls_.end() || Find(fd) == nullptr) return Fail(EBADF);
  switch (op) {
    case EPOLL_CTL_ADD:
      if (!it->second.emplace(fd, Watch{*event}).second) return Fail(EEXIST);
      return 0;
    case EPOLL_CTL_MOD:
      if (!it->second.contains(fd)) return Fail(ENOENT);
      it->second[fd] = Watch{*event};
      return 0;
    case EPOLL_CTL_DEL:
      return it->second.erase(fd) > 0 ? 0 : Fail(ENOENT);
    default:
      return Fail(EINVAL);
  }
}

int Sockets::EpollWait(Held lock, int epfd, epoll_event* events, int most, int timeout) {
  const auto collect = [&](bool take) {
    int count = 0;
    for (auto& [fd, w] : epolls_[epfd]) {
      Entry* const e = Find(fd);
      if (e == nullptr || w.off || count >= most) continue;
      const uint32_t wanted = (w.event.events & 0xffff) | EPOLLERR | EPOLLHUP;
      const uint32_t is = Events(*e) & wanted;
      // Edge-triggered: something that was not told yet.
      if (is == 0 || ((w.event.events & EPOLLET) != 0 && (is & ~w.told) == 0)) continue;
      if (take) {
        events[count] = {is, w.event.data};
        w.told = is;
        w.off = (w.event.events & EPOLLONESHOT) != 0;
      }
      ++count;
    }
    return count;
  };
  if (!epolls_.contains(epfd)) return Fail(EBADF);
  if (collect(false) == 0 && timeout != 0) {
    machine_.WaitFor(lock, [&] { return collect(false) > 0; },
                     timeout < 0 ? Nanos::Max() : Millis(timeout));
  }
  return collect(true);
}

}  // namespace sluice::test
