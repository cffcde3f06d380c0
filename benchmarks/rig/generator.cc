// Sends frames out of a device from inside the kernel: BPF_PROG_RUN with live frames, on one core.
//   rig_generator --interface IF --targets FILE --source ADDRESS --source-mac MAC --gateway-mac MAC
//                 [--size BYTES] [--rate FRAMES_PER_SECOND] [--cpu N] [--batch N] [--frames N]
//                 [--new-ports N]
// FILE has one frame per line: DESTINATION [SOURCE [SOURCE_PORT [DESTINATION_PORT]]], otherwise
// from --source, port 4000, to port 4001; the family is that of --source. Sending starts at once
// and ends with the input; "read" answers with the frames sent so far. With --frames it sends that
// many and ends. With --new-ports each round through the file has another source port, of N. Frames
// carry correct IPv4 and UDP checksums.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <netinet/ether.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <span>
#include <sstream>
#include <thread>
#include <vector>

#include "command_loop.h"
#include "generator.skel.h"
#include "options.h"
#include "rig_abi.h"

namespace sluice::rig {
namespace {

// Each call of BPF_PROG_RUN begins and ends with tens of milliseconds in which nothing is sent, and
// the device idles: so one call is to outlast a measurement. A signal ends it.
constexpr uint32_t kFramesPerCall = 1000000000;
constexpr int kEndCall = SIGUSR1;
// With an end, which may come in the middle of a call.
constexpr uint32_t kFramesPerShortCall = 10000;
constexpr size_t kEthernetBytes = 14, kUdpBytes = 8;

struct Options {
  std::string interface, targets, source, source_mac, gateway_mac;
  // A batch is also the size of the page pool that frames come from. With a smaller one, frames
  // that a device frees on its own core go to the page allocator, a cost of its core that no NIC
  // has; a larger one fills a veth's ring of 256 at once, and keeps the sink waiting.
  uint32_t size = 64, batch = 128, frames = 0, new_ports = 0;
  uint64_t rate = 0;
  int cpu = 0;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  ReadOptions(argc, argv, {{"interface", &options.interface},
                           {"targets", &options.targets},
                           {"source", &options.source},
                           {"source-mac", &options.source_mac},
                           {"gateway-mac", &options.gateway_mac},
                           {"size", &options.size},
                           {"rate", &options.rate},
                           {"cpu", &options.cpu},
                           {"batch", &options.batch},
                           {"frames", &options.frames},
                           {"new-ports", &options.new_ports}});
  return options;
}

uint32_t Sum(std::span<const uint8_t> bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i) sum += uint32_t(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  return sum;
}

uint16_t Finish(uint32_t sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons(uint16_t(~sum));
}

struct Ends {
  std::array<uint8_t, 16> source = {}, destination = {};
  uint16_t source_port = 4000, destination_port = 4001;
};

// The checksums of what generator.bpf.c writes: TTL 64, don't fragment, payload of zeros.
rig_target MakeTarget(const Ends& ends, size_t address_bytes, uint32_t frame_size) {
  rig_target target = {};
  std::memcpy(target.address, ends.destination.data(), address_bytes);
  std::memcpy(target.source, ends.source.data(), address_bytes);
  target.source_port = htons(ends.source_port);
  target.destination_port = htons(ends.destination_port);
  const uint32_t addresses = Sum(std::span(ends.source).first(address_bytes)) +
                             Sum(std::span(ends.destination).first(address_bytes));
  const uint32_t ip_header = address_bytes == 4 ? 20 : 40;
  const uint32_t udp_length = frame_size - kEthernetBytes - ip_header;
  target.ip_checksum =
      Finish(0x4500 + ip_header + udp_length + 0x4000 + (64 << 8) + IPPROTO_UDP + addresses);
  target.udp_checksum =
      Finish(addresses + IPPROTO_UDP + 2 * udp_length + ends.source_port + ends.destination_port);
  return target;
}

void ReadMac(const std::string& text, uint8_t* to) {
  const ether_addr* mac = ether_aton(text.c_str());
  if (mac == nullptr) Fail("bad MAC address " + text);
  std::memcpy(to, mac, 6);
}

class Generator {
 public:
  explicit Generator(const Options& options) : options_(options) {
    family_ = options.source.find(':') == std::string::npos ? AF_INET : AF_INET6;
    address_bytes_ = family_ == AF_INET ? 4 : 16;
    if (options.size < kEthernetBytes + (family_ == AF_INET ? 20 : 40) + kUdpBytes) {
      Fail("frame too short for its headers");
    }
    ifindex_ = if_nametoindex(options.interface.c_str());
    if (ifindex_ == 0) Fail("no interface " + options.interface);
    Load(ReadTargets());
  }
  ~Generator() { generator_bpf__destroy(skeleton_); }
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  void Run(uint32_t frames) {
    std::vector<uint8_t> frame(options_.size);
    xdp_md context = {};
    context.data_end = options_.size;
    context.ingress_ifindex = ifindex_;
    LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame.data(), .data_size_in = options_.size,
                .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = int(frames),
                .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = options_.batch);
    if (bpf_prog_test_run_opts(bpf_program__fd(skeleton_->progs.generate), &run) != 0 &&
        errno != EINTR) {
      Fail(std::string("BPF_PROG_RUN: ") + std::strerror(errno));
    }
  }

  uint64_t sent() const {
    return *static_cast<const volatile __u64*>(&skeleton_->bss->sent_frames);
  }

 private:
  void ReadAddress(const std::string& text, std::array<uint8_t, 16>* to) const {
    if (inet_pton(family_, text.c_str(), to->data()) != 1) Fail("bad address " + text);
  }

  std::vector<rig_target> ReadTargets() {
    Ends defaults;
    ReadAddress(options_.source, &defaults.source);
    std::ifstream file(options_.targets);
    std::vector<rig_target> targets;
    for (std::string line; std::getline(file, line);) {
      Ends ends = defaults;
      std::istringstream words(line);
      std::string destination, source;
      words >> destination >> source >> ends.source_port >> ends.destination_port;
      ReadAddress(destination, &ends.destination);
      if (!source.empty()) ReadAddress(source, &ends.source);
      if (ends.source_port == 0) ends.source_port = 4000;
      if (ends.destination_port == 0) ends.destination_port = 4001;
      targets.push_back(MakeTarget(ends, address_bytes_, options_.size));
    }
    if (targets.empty() || targets.size() > RIG_MAX_TARGETS) Fail("bad number of targets");
    return targets;
  }

  void Load(const std::vector<rig_target>& targets) {
    skeleton_ = generator_bpf__open();
    if (skeleton_ == nullptr) Fail("cannot open the generator's program");
    auto* rodata = skeleton_->rodata;
    rodata->target_count = targets.size();
    rodata->is_ipv6 = family_ == AF_INET6;
    rodata->frame_limit = options_.frames;
    rodata->new_ports = options_.new_ports;
    rodata->interval_ns = options_.rate == 0 ? 0 : 1000000000u / options_.rate;
    ReadMac(options_.source_mac, skeleton_->bss->source_mac);
    ReadMac(options_.gateway_mac, skeleton_->bss->gateway_mac);
    if (generator_bpf__load(skeleton_) != 0) Fail("cannot load the generator's program");
    const int map = bpf_map__fd(skeleton_->maps.targets);
    for (uint32_t i = 0; i < targets.size(); ++i) {
      if (bpf_map_update_elem(map, &i, &targets[i], BPF_ANY) != 0) Fail("cannot fill the map");
    }
  }

  Options options_;
  int family_ = AF_INET;
  size_t address_bytes_ = 4;
  uint32_t ifindex_ = 0;
  generator_bpf* skeleton_ = nullptr;
};

int Main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  PinThread(options.cpu);
  Generator generator(options);
  if (options.frames > 0) {
    // At a limited rate most runs of the program send nothing.
    while (generator.sent() < options.frames) {
      generator.Run(std::min(options.frames, kFramesPerShortCall));
    }
    return 0;
  }
  struct sigaction action = {};
  action.sa_handler = [](int) {};
  sigaction(kEndCall, &action, nullptr);
  std::atomic<bool> stop = false, ended = false;
  std::thread sender([&] {
    while (!stop.load(std::memory_order_relaxed)) generator.Run(kFramesPerCall);
    ended = true;
  });
  Say("{\"ready\":true}");
  RunCommands([&](const std::string& line) {
    if (line != "read") return false;
    Say("{\"time_ns\":" + std::to_string(MonotonicNanos()) +
        ",\"sent\":" + std::to_string(generator.sent()) + "}");
    return true;
  });
  stop = true;
  // Again and again, since one that comes between two calls ends neither.
  while (!ended.load(std::memory_order_relaxed)) {
    pthread_kill(sender.native_handle(), kEndCall);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  sender.join();
  return 0;
}

}  // namespace
}  // namespace sluice::rig

int main(int argc, char** argv) { return sluice::rig::Main(argc, argv); }
