// The limit of the I/O path: takes each frame from one interface, swaps its MAC addresses and sends
// it out of the other, through AF_XDP in copy mode, on one thread. Good practice otherwise: sleep
// in poll() when there is nothing, reap completions, kick until the kernel has taken all.
//   bare_forwarder LEFT RIGHT [--ring N] [--fill N] [--frames N] [--chunk N] [--stride N] [--fifo]
//       [--batch N] [--kick-every N] [--budget N] [--send-buffer N] [--multi-buffer] [--spin]
//       [--cpu N]
// Prints {"ready":true} once it forwards and its counters when SIGTERM or SIGINT ends it.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>
#include <poll.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "command_loop.h"
#include "options.h"
#include "steer.skel.h"
#include "xsk_port.h"

namespace sluice::rig {
namespace {

volatile std::sig_atomic_t g_stop = 0;

struct Options {
  std::vector<std::string> interfaces;
  XskOptions xsk;
  int cpu = -1;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  XskOptions& xsk = options.xsk;
  options.interfaces = ReadOptions(
      argc, argv,
      {{"ring", &xsk.ring}, {"fill", &xsk.fill}, {"frames", &xsk.frames}, {"chunk", &xsk.chunk},
       {"stride", &xsk.stride}, {"fifo", &xsk.fifo}, {"batch", &xsk.batch},
       {"kick-every", &xsk.kick_every}, {"budget", &xsk.budget},
       {"send-buffer", &xsk.send_buffer}, {"multi-buffer", &xsk.multi_buffer},
       {"spin", &xsk.spin}, {"cpu", &options.cpu}});
  if (options.interfaces.size() != 2) Fail("two interfaces are needed");
  return options;
}

class Forwarder {
 public:
  Forwarder(std::array<std::string, 2> names, const XskOptions& options)
      : options_(options), arena_(options), descriptors_(options.batch) {
    for (size_t i = 0; i < 2; ++i) Attach(names[i], i);
  }
  ~Forwarder() {
    for (bpf_link* link : links_) bpf_link__destroy(link);
    for (steer_bpf* skeleton : skeletons_) steer_bpf__destroy(skeleton);
  }
  Forwarder(const Forwarder&) = delete;
  Forwarder& operator=(const Forwarder&) = delete;

  void Run() {
    while (!g_stop) {
      const bool moved = Move(*ports_[0], *ports_[1]) | Move(*ports_[1], *ports_[0]);
      if (moved || options_.spin) continue;
      Sleep();
    }
  }

  void Report() const {
    Say("{\"polls\":" + std::to_string(polls_) + ",\"left\":" + ports_[0]->StatisticsJson() +
        ",\"right\":" + ports_[1]->StatisticsJson() + "}");
  }

 private:
  // Each interface has a program and a map of its own: a map is indexed by queue alone.
  void Attach(const std::string& name, size_t index) {
    const unsigned ifindex = if_nametoindex(name.c_str());
    if (ifindex == 0) Fail("no interface " + name);
    steer_bpf* skeleton = skeletons_[index] = steer_bpf__open();
    if (skeleton == nullptr) Fail("cannot open the steering program");
    bpf_program* program =
        options_.multi_buffer ? skeleton->progs.steer_frags : skeleton->progs.steer;
    bpf_program__set_autoload(skeleton->progs.steer, !options_.multi_buffer);
    bpf_program__set_autoload(skeleton->progs.steer_frags, options_.multi_buffer);
    if (steer_bpf__load(skeleton) != 0) Fail("cannot load the steering program");
    links_[index] = bpf_program__attach_xdp(program, int(ifindex));
    if (links_[index] == nullptr) Fail("cannot attach to " + name + ": " + std::strerror(errno));
    ports_[index] = std::make_unique<XskPort>(name, arena_, options_);
    const uint32_t queue = 0;
    const int fd = ports_[index]->fd();
    if (bpf_map_update_elem(bpf_map__fd(skeleton->maps.sockets), &queue, &fd, BPF_ANY) != 0) {
      Fail(std::string("cannot enter the socket: ") + std::strerror(errno));
    }
  }

  bool Move(XskPort& from, XskPort& to) {
    from.Refill();
    const size_t count = from.Receive(descriptors_);
    if (count == 0 && !to.tx_pending()) {
      to.Reap();
      return false;
    }
    for (size_t i = 0; i < count; ++i) SwapMacs(arena_.memory() + Offset(descriptors_[i].addr));
    const size_t step = options_.kick_every != 0 ? options_.kick_every : options_.batch;
    for (size_t at = 0; at < count; at += step) {
      to.Send(std::span<const xdp_desc>(descriptors_).subspan(at, std::min(step, count - at)));
      if (at + step < count) to.Kick();
    }
    to.Kick();
    to.Reap();
    return count > 0;
  }

  static uint64_t Offset(uint64_t address) { return xsk_umem__add_offset_to_addr(address); }

  static void SwapMacs(uint8_t* frame) {
    std::array<uint8_t, 6> target;
    std::memcpy(target.data(), frame, 6);
    std::memcpy(frame, frame + 6, 6);
    std::memcpy(frame + 6, target.data(), 6);
  }

  void Sleep() {
    ++polls_;
    std::array<pollfd, 2> fds = {pollfd{ports_[0]->fd(), POLLIN, 0},
                                 pollfd{ports_[1]->fd(), POLLIN, 0}};
    // A device that would take no more is tried again soon; otherwise only a signal matters.
    const bool pending = ports_[0]->tx_pending() || ports_[1]->tx_pending();
    poll(fds.data(), fds.size(), pending ? 0 : 1000);
  }

  XskOptions options_;
  Arena arena_;
  std::vector<xdp_desc> descriptors_;
  std::array<steer_bpf*, 2> skeletons_ = {};
  std::array<bpf_link*, 2> links_ = {};
  std::array<std::unique_ptr<XskPort>, 2> ports_;
  uint64_t polls_ = 0;
};

int Main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  if (options.cpu >= 0) PinThread(options.cpu);
  // No SA_RESTART: the signal ends poll().
  struct sigaction action = {};
  action.sa_handler = [](int) { g_stop = 1; };
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  Forwarder forwarder({options.interfaces[0], options.interfaces[1]}, options.xsk);
  Say("{\"ready\":true}");
  forwarder.Run();
  forwarder.Report();
  return 0;
}

}  // namespace
}  // namespace sluice::rig

int main(int argc, char** argv) { return sluice::rig::Main(argc, argv); }
