// The whole data plane under arbitrary events: the input is a list of them, each a byte that says
// what happens and bytes that say how. After every one, the router's invariants must hold (frames
// accounted for, one fate per packet: support/sim_router.h).
//
//   first byte   bit 0: two workers; bit 1: packets in pieces of 200 bytes; bit 2: few frames
//   event & 15   0-7 a frame arrives    FLAGS LENGTH PADDING bytes...
//                8   time passes        10 ms units
//                9   time passes        seconds, up to 63
//                10  a route changes    WHICH
//                11  an interface changes and the snapshot is published
//                12  the kernel tells about a neighbour
//                13  an output queue stops or starts
//                14  an interface is forgotten
//                15  whoever was asked last by ARP or a solicitation answers
//
// FLAGS: bits 0-1 the port; bit 2: the destination MAC is left as it is, else it is the port's;
// bit 3: the IPv4 header checksum is left, else it is made right, so that the fuzzer gets past it.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "support/fuzz_input.h"
#include "support/packet_builder.h"
#include "support/sim_router.h"

namespace sluice::test {
namespace {

constexpr size_t kPorts = 3;
const std::string kNames[kPorts] = {"p0", "p1", "p2"};

SimRouter::Options OptionsFrom(uint8_t first) {
  SimRouter::Options options;
  options.workers = (first & 1) != 0 ? 2 : 1;
  options.port.segment_bytes = (first & 2) != 0 ? 200 : 0;
  options.port.fill_depth = 16;
  options.port.tx_depth = 16;
  options.frames = (first & 4) != 0 ? 60 : 256;
  options.neighbor_limit = 8;
  return options;
}

Mac MacOf(size_t port) { return Mac{{2, 0, 0, 0, 0, static_cast<uint8_t>(port)}}; }

class Machine {
 public:
  explicit Machine(FuzzInput input) : input_(input), router_("router", OptionsFrom(input_.Byte())) {
    for (size_t i = 0; i < kPorts; ++i) {
      const std::string n = std::to_string(i);
      router_.AddInterface(kNames[i], MacOf(i),
                           {"10.0." + n + ".1/24", "2001:db8:0:" + n + "::1/64"}, 1500,
                           i == 1 ? 1 : 0);
    }
    router_.Publish();
    router_.AddRoute("0.0.0.0/0", "10.0.1.2").AddRoute("::/0", "2001:db8:0:1::2");
    router_.set_transmit([this](size_t port, Bytes frame) { Sent(port, std::move(frame)); });
    Step();
  }

  void Run() {
    // Bounds on events and time keep single inputs fast.
    for (int events = 0; events < 256 && !input_.empty(); ++events) {
      Event(input_.Byte() & 15);
      Step();
    }
    now_ += Seconds(4);  // what still waits has failed
    Step();
  }

 private:
  void Step() {
    router_.Step(now_);
    const std::string problem = router_.CheckInvariants();
    if (problem.empty()) return;
    std::fprintf(stderr, "%s\n", problem.c_str());
    std::abort();
  }

  void Sent(size_t port, Bytes frame) {
    const uint16_t type = frame.size() >= 42 ? LoadBe16(frame.data() + 12) : 0;
    const bool question =
        (type == 0x0806 && frame[21] == 1) ||
        (type == 0x86dd && frame.size() >= 78 && frame[20] == 58 && frame[54] == 135);
    if (!question) return;
    question_ = std::move(frame);
    question_port_ = port;
  }

  void Event(uint8_t event) {
    if (event < 8) return Arrive();
    switch (event) {
      case 8:
        now_ += Millis(10) * input_.Byte();
        break;
      case 9:
        now_ += Seconds(input_.Byte() & 63);
        break;
      case 10:
        ChangeRoute(input_.Byte());
        break;
      case 11:
        ChangeInterface(input_.Byte());
        break;
      case 12:
        TellNeighbor(input_.Byte());
        break;
      case 13: {
        const uint8_t how = input_.Byte();
        const std::string name = kNames[how % kPorts];
        (how & 0x40) != 0 ? router_.punt_device(name).set_blocked((how & 0x80) != 0)
                          : router_.port(name).set_tx_blocked((how & 0x80) != 0);
        break;
      }
      case 14: {
        const IfaceSlot slot = router_.SlotOf(kNames[input_.Byte() % kPorts]);
        router_.OnWorkers([slot](SimRouter::Worker& worker) { worker.ForgetInterface(slot); });
        break;
      }
      default:
        Answer();
    }
  }

  void Arrive() {
    const uint8_t flags = input_.Byte();
    const size_t length = input_.Byte();
    const size_t padding = size_t{input_.Byte()} * 8;
    const size_t port = (flags & 3) % kPorts;
    Bytes frame = input_.Take(length);
    frame.resize(frame.size() + padding);
    if (frame.empty()) return;
    if ((flags & 4) == 0 && frame.size() >= 6) MacOf(port).ToWire(frame.data());
    const size_t header = frame.size() > 14 ? (frame[14] & 0xf) * 4u : 0;
    if ((flags & 8) == 0 && header >= 20 && frame.size() >= 14 + header && frame[12] == 8 &&
        frame[13] == 0) {
      StoreBe16(frame.data() + 24, 0);
      StoreBe16(frame.data() + 24, NaiveChecksum({frame.data() + 14, header}));
    }
    router_.Deliver(port, std::move(frame));
  }

  void ChangeRoute(uint8_t how) {
    using tables::RouteType;
    static constexpr RouteType kTypes[] = {RouteType::kBlackhole, RouteType::kUnreachable,
                                           RouteType::kProhibit,  RouteType::kPunt,
                                           RouteType::kBroadcast, RouteType::kLocal};
    static const char* const kPrefixes[] = {"0.0.0.0/0", "172.16.0.0/12", "::/0", "fd00::/8"};
    const std::string prefix = kPrefixes[how & 3];
    const bool v6 = (how & 2) != 0;
    const std::string net = v6 ? "2001:db8:0:" : "10.0.";
    const std::string host = v6 ? "::" : ".";
    const uint8_t what = static_cast<uint8_t>(how >> 2 & 15);
    if (what < 6) {
      router_.AddRoute(prefix, kTypes[what]);
    } else if (what == 6) {
      router_.RemoveRoute(prefix);
    } else if (what == 7) {
      router_.AddMultipath(prefix, {{net + "0" + host + "9", "", 2}, {net + "2" + host + "9"}});
    } else {
      router_.AddRoute(prefix, net + std::to_string(what % 3) + host + std::to_string(what), "",
                       (how & 0x80) != 0 ? 600 : 0);
    }
  }

  void ChangeInterface(uint8_t how) {
    static constexpr uint32_t kMtus[] = {1500, 68, 600, 1280};
    tables::Interface& i = router_.interface(kNames[(how & 3) % kPorts]);
    i.up = (how & 4) == 0;
    i.mtu = i.mtu6 = kMtus[how >> 3 & 3];
    i.rp_filter = (how & 0x20) != 0;
    i.checksum = (how & 0x40) != 0 ? tables::ChecksumMode::kComplete : tables::ChecksumMode::kTrust;
    i.shared_media = (how & 0x80) == 0;
    router_.Publish();
  }

  void TellNeighbor(uint8_t how) {
    static constexpr uint16_t kStates[] = {stages::kNudPermanent, stages::kNudStale,
                                           stages::kNudReachable, stages::kNudFailed};
    const size_t port = (how & 3) % kPorts;
    const bool v6 = (how & 4) != 0;
    const std::string n = std::to_string(port);
    const IpAddress address = *ParseIpAddress(v6 ? "2001:db8:0:" + n + "::2" : "10.0." + n + ".2");
    const IfaceSlot slot = router_.SlotOf(kNames[port]);
    const uint16_t state = kStates[how >> 3 & 3];
    const Mac mac{{6, 0, 0, 0, 0, static_cast<uint8_t>(how >> 6)}};
    const bool remove = (how & 0x20) != 0;
    router_.OnWorkers([=](SimRouter::Worker& w) {
      remove ? w.pipeline().RemoveKernelNeighbor(slot, address, w.now())
             : w.pipeline().ApplyKernelNeighbor(slot, address, mac, state, w.snapshot(), w.now());
    });
  }

  void Answer() {
    if (question_.empty()) return;
    const Bytes& q = question_;
    const Mac asker = Mac::FromWire(q.data() + 6);
    const Mac mac{{6, 0, 0, 0, 1, q.back()}};
    PacketBuilder answer;
    answer.Ethernet(mac, asker);
    if (q[12] == 8) {
      answer.ArpReply(mac, Ipv4::FromWire(q.data() + 38), asker, Ipv4::FromWire(q.data() + 28));
    } else {
      const Ipv6 target = Ipv6::FromWire(q.data() + 62);
      answer.Ipv6(target, Ipv6::FromWire(q.data() + 22))
          .NeighborAdvertisement(target, false, true, true)
          .TargetLinkLayer(mac);
    }
    router_.Deliver(question_port_, answer.Build());
  }

  FuzzInput input_;
  SimRouter router_;
  Nanos now_ = Seconds(1000);
  Bytes question_;
  size_t question_port_ = 0;
};

}  // namespace
}  // namespace sluice::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sluice::test::Machine(sluice::test::FuzzInput({data, size})).Run();
  return 0;
}
