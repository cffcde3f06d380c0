// Connection tracking against the kernel's: the same packets at random, one by one, and after each
// the same `ct state` and direction, and the same entry: state, status, flags, scales, timeout.
//
// SLUICE_CONNTRACK_SEQUENCES says how many connections (300 without), SLUICE_CONNTRACK_SEED from
// which seed on. A failure names the seed and shows the packets.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "base/rng.h"
#include "support/kernel_conntrack.h"
#include "unit/stages/conntrack_fixture.h"

namespace sluice::stages {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// One host of a TCP connection, as far as the generator knows what would be right.
struct Peer {
  uint32_t next = 0;       // sequence number of what it sends next
  uint32_t seen = 0;       // what it would acknowledge
  uint16_t window = 1000;
};

class TcpGenerator {
 public:
  explicit TcpGenerator(Rng& rng, uint16_t port, bool v6) : rng_(rng), port_(port), v6_(v6) {
    for (Peer& peer : peers_) peer.next = static_cast<uint32_t>(rng_.Next());
    script_ = rng_.Below(4);
  }

  struct Packet {
    Bytes frame;
    bool from_a;
    std::string text;
  };

  Packet Next() {
    // Most connections begin as they should, for the rest of the states to be reached.
    bool from_a = rng_.Chance(1, 2);
    uint8_t flags = RandomFlags();
    bool exact = rng_.Chance(3, 5);
    if (script_ != 0 && step_ < 3) {
      from_a = step_ != 1;
      flags = step_ == 0 ? wire::kTcpSyn
                         : step_ == 1 ? wire::kTcpSyn | wire::kTcpAck : wire::kTcpAck;
      exact = true;
    }
    ++step_;
    return Make(from_a, flags, exact);
  }

 private:
  uint8_t RandomFlags() {
    static constexpr uint8_t kUsual[] = {0x10, 0x10, 0x10, 0x10, 0x18, 0x18, 0x02, 0x02, 0x12,
                                         0x11, 0x11, 0x04, 0x14, 0x14, 0xc2, 0x50};
    return rng_.Chance(1, 40) ? static_cast<uint8_t>(rng_.Below(256))
                              : kUsual[rng_.Below(std::size(kUsual))];
  }
  uint32_t Off(uint32_t number) {
    static constexpr uint32_t kBy[] = {1, 2, 100, 999, 1000, 1001, 30'000, 65'535, 66'001, 1 << 20};
    switch (rng_.Below(8)) {
      case 0: return static_cast<uint32_t>(rng_.Next());
      case 1: return 0;
      case 2:
      case 3:
      case 4: return number - kBy[rng_.Below(std::size(kBy))];
      default: return number + kBy[rng_.Below(std::size(kBy))];
    }
  }
  Bytes RandomOptions(bool syn, const Peer& receiver) {
    Bytes options;
    if (syn) {
      if (rng_.Chance(1, 2)) {
        options.insert(options.end(), {1, 3, 3, static_cast<uint8_t>(rng_.Below(16))});
      }
      if (rng_.Chance(1, 2)) options.insert(options.end(), {1, 1, 4, 2});
      return options;
    }
    if (rng_.Chance(1, 8)) {
      const auto length = static_cast<uint8_t>(rng_.Chance(1, 8) ? rng_.Below(14) : 10);
      options = {1, 1, 5, length};
      for (int edge = 0; edge < 2; ++edge) {
        options.resize(options.size() + 4);
        StoreBe32(options.data() + options.size() - 4,
                  receiver.next - static_cast<uint32_t>(rng_.Below(2000)));
      }
    }
    return options;
  }

  Packet Make(bool from_a, uint8_t flags, bool exact) {
    Peer& from = peers_[from_a ? 0 : 1];
    Peer& to = peers_[from_a ? 1 : 0];
    const bool syn = (flags & wire::kTcpSyn) != 0;
    const bool ack = (flags & wire::kTcpAck) != 0;
    uint32_t sequence = from.next;
    uint32_t acknowledgment = ack ? from.seen : 0;
    if (!exact) {
      if (rng_.Chance(2, 3)) sequence = Off(sequence);
      if (ack && rng_.Chance(1, 2)) acknowledgment = Off(acknowledgment);
    }
    const bool carries = !syn && ack && (flags & wire::kTcpRst) == 0;
    const size_t data = carries && rng_.Chance(1, 2) ? rng_.Below(1200) : 0;
    static constexpr uint16_t kWindows[] = {0, 1, 100, 1000, 5000, 65'535};
    if (rng_.Chance(1, 4)) from.window = kWindows[rng_.Below(std::size(kWindows))];

    PacketBuilder builder = PacketBuilder().Ethernet("02:00:00:00:00:aa", "02:00:00:00:00:01");
    if (v6_) {
      from_a ? builder.Ipv6("2001:db8::2", "2001:db8:1::9")
             : builder.Ipv6("2001:db8:1::9", "2001:db8::2");
    } else {
      from_a ? builder.Ipv4("10.0.0.2", "192.0.2.9") : builder.Ipv4("192.0.2.9", "10.0.0.2");
    }
    from_a ? builder.Tcp(port_, 80, flags) : builder.Tcp(80, port_, flags);
    builder.Sequence(sequence, acknowledgment).Window(from.window);
    const Bytes options = RandomOptions(syn, to);
    if (!options.empty()) builder.Options(options);
    if (rng_.Chance(1, 60)) builder.BadChecksum();
    if (data > 0) builder.Payload(data);

    const uint32_t end = sequence + static_cast<uint32_t>(data) + (syn ? 1 : 0) +
                         ((flags & wire::kTcpFin) != 0 ? 1 : 0);
    // A SYN with other numbers begins anew; sometimes both sides go along.
    if (exact || (syn && rng_.Chance(1, 2))) {
      from.next = end;
      if (rng_.Chance(5, 6)) to.seen = end;
    }
    char text[160];
    std::snprintf(text, sizeof text, "%s flags %02x seq %u ack %u win %u data %zu options %s\n",
                  from_a ? "a" : "b", flags, sequence, acknowledgment, from.window, data,
                  test::ToHex(options).c_str());
    return {builder.Build(), from_a, text};
  }

  Rng& rng_;
  const uint16_t port_;
  const bool v6_;
  uint64_t script_ = 0;
  int step_ = 0;
  Peer peers_[2];
};

class AgainstTheKernel : public ConntrackFixture {
 protected:
  AgainstTheKernel() { UseTable({.capacity = 1 << 16, .hash_seed = 1, .start = kStart}); }

  void Compare(const TcpGenerator::Packet& packet) {
    const CtState ours = Pass(packet.frame);
    const auto theirs = kernel.Pass(packet.frame, packet.from_a);
    ASSERT_TRUE(theirs.has_value()) << "the kernel dropped it";
    ASSERT_EQ(ours, theirs->state);
    if (ours != CtState::kInvalid) {
      ASSERT_EQ(direction(), theirs->direction);
    }
  }
  void CompareEntry(const FlowTuple& tuple) {
    const auto found = table->Find(tuple);
    const auto theirs = kernel.Find(tuple);
    ASSERT_EQ(found.found(), theirs.has_value());
    if (!found.found()) return;
    const Flow& f = table->at(found.flow);
    ASSERT_EQ(f.tuples[0].source_port, theirs->source_port);
    const tables::TcpTracking& tcp = f.tcp;
    ASSERT_EQ(static_cast<TcpState>(tcp.state), static_cast<TcpState>(theirs->tcp_state));
    constexpr uint32_t kCompared = tables::kFlowSeenReply | tables::kFlowAssured;
    ASSERT_EQ(f.status & kCompared, theirs->status & kCompared);
    for (size_t i = 0; i < 2; ++i) {
      ASSERT_EQ(tcp.flags[i], theirs->flags[i]) << "peer " << i;
      ASSERT_EQ(tcp.scales[i], theirs->scales[i]) << "peer " << i;
    }
    const int64_t left = (f.expires - now) / Seconds(1);
    ASSERT_NEAR(static_cast<double>(left), theirs->timeout, 3);
  }

  // UDP, ICMP, errors that quote them, other protocols: of few tuples, so that they meet.
  Bytes RandomOther(Rng& rng, bool v6, bool from_a) {
    const auto builder = [&](bool a) {
      PacketBuilder b = PacketBuilder().Ethernet("02:00:00:00:00:aa", "02:00:00:00:00:01");
      if (v6) {
        a ? b.Ipv6("2001:db8::2", "2001:db8:1::9") : b.Ipv6("2001:db8:1::9", "2001:db8::2");
      } else {
        a ? b.Ipv4("10.0.0.2", "192.0.2.9") : b.Ipv4("192.0.2.9", "10.0.0.2");
      }
      return b;
    };
    const auto small = [&] { return static_cast<uint16_t>(rng.Below(6)); };
    const auto ports = [&](PacketBuilder& b, bool a, bool udp) {
      const auto own = static_cast<uint16_t>(40'000 + small());
      udp ? (a ? b.Udp(own, 53) : b.Udp(53, own)) : (a ? b.Tcp(own, 80, 2) : b.Tcp(80, own, 0x12));
    };
    PacketBuilder b = builder(from_a);
    switch (rng.Below(8)) {
      case 0:
      case 1:
        ports(b, from_a, true);
        if (rng.Chance(1, 8)) b.BadChecksum();
        if (rng.Chance(1, 8)) b.ZeroUdpChecksum();
        if (rng.Chance(1, 8)) b.UdpLength(static_cast<uint16_t>(rng.Below(40)));
        return b.Payload(rng.Below(30)).Build();
      case 2: {
        static constexpr uint8_t kTypes4[] = {0, 8, 13, 14, 15, 16, 17, 18, 9, 10, 19, 40};
        static constexpr uint8_t kTypes6[] = {128, 129, 139, 140, 128, 129,
                                              130, 131, 132, 143, 150};
        const uint32_t rest = uint32_t{small()} << 16 | 1;
        const auto code = static_cast<uint8_t>(rng.Below(2));
        v6 ? b.Icmpv6(kTypes6[rng.Below(std::size(kTypes6))], code, rest)
           : b.Icmp(kTypes4[rng.Below(std::size(kTypes4))], code, rest);
        if (rng.Chance(1, 8)) b.BadChecksum();
        return b.Payload(rng.Below(30)).Build();
      }
      case 3: {
        v6 ? b.Icmpv6Echo(small(), 1) : b.IcmpEcho(small(), 1);
        return b.Payload(8).Build();
      }
      case 4:
        v6 ? b.Icmpv6EchoReply(small(), 1) : b.IcmpEchoReply(small(), 1);
        return b.Payload(8).Build();
      case 5: {
        // GRE of version 0 and 1, ESP, and a protocol that nobody has.
        static constexpr uint8_t kProtocols[] = {47, 47, 47, 50, 253, 33};
        Bytes payload(rng.Below(16));
        for (uint8_t& byte : payload) byte = static_cast<uint8_t>(rng.Below(2));
        if (payload.size() >= 8 && rng.Chance(1, 2)) {
          payload = {0x20, 1, 0x88, 0x0b, 0, 0, 0, static_cast<uint8_t>(rng.Below(3))};
        }
        return b.Protocol(kProtocols[rng.Below(std::size(kProtocols))]).Payload(payload).Build();
      }
      default: {
        // An error that a router beside the sender of `b` reports; sometimes to the wrong host.
        const bool quoted_from_a = rng.Chance(7, 8) ? !from_a : from_a;
        PacketBuilder inner = builder(quoted_from_a);
        const uint64_t what = rng.Below(4);
        if (what == 0) {
          v6 ? inner.Icmpv6Echo(small(), 1) : inner.IcmpEcho(small(), 1);
        } else if (what == 1) {
          inner.Protocol(47).Payload(Bytes{0, 0, 8, 0});
        } else {
          ports(inner, quoted_from_a, what == 2);
        }
        if (rng.Chance(1, 16) && !v6) inner.FragmentOffset(8);
        Bytes quote = inner.Payload(8).Build();
        quote.erase(quote.begin(), quote.begin() + 14);
        if (rng.Chance(1, 4)) quote.resize(rng.Below(quote.size() + 1));
        v6 ? b.Icmpv6(static_cast<uint8_t>(rng.Below(6)), 0)
           : b.Icmp(static_cast<uint8_t>(rng.Chance(1, 2) ? 3 : rng.Below(14)), 1);
        if (rng.Chance(1, 16)) b.BadChecksum();
        return b.Payload(quote).Build();
      }
    }
  }

  void RunSequences(uint64_t count, bool v6) {
    const uint64_t first = FromEnvironment("SLUICE_CONNTRACK_SEED", 1);
    for (uint64_t seed = first; seed < first + count; ++seed) {
      Rng rng(seed);
      const auto port = static_cast<uint16_t>(1024 + seed % 60'000);
      TcpGenerator generator(rng, port, v6);
      std::string story = "seed " + std::to_string(seed) + "\n";
      FlowTuple tuple;
      tuple.protocol = 6;
      tuple.family = v6 ? Family::kIpv6 : Family::kIpv4;
      tuple.source = v6 ? test::A6("2001:db8::2") : Ipv6(0, test::A4("10.0.0.2").value);
      tuple.destination = v6 ? test::A6("2001:db8:1::9") : Ipv6(0, test::A4("192.0.2.9").value);
      tuple.source_port = port;
      tuple.destination_port = 80;
      const uint64_t packets = 5 + rng.Below(40);
      for (uint64_t i = 0; i < packets; ++i) {
        const TcpGenerator::Packet packet = generator.Next();
        story += packet.text;
        ASSERT_NO_FATAL_FAILURE(Compare(packet)) << story;
        ASSERT_NO_FATAL_FAILURE(CompareEntry(tuple)) << story;
      }
    }
  }

  test::KernelConntrack kernel;
};

uint64_t Sequences() { return FromEnvironment("SLUICE_CONNTRACK_SEQUENCES", 300); }

TEST_F(AgainstTheKernel, Tcp) { RunSequences(Sequences(), false); }
TEST_F(AgainstTheKernel, Tcp6) { RunSequences(Sequences() / 4, true); }

TEST_F(AgainstTheKernel, UdpIcmpErrorsAndOthers) {
  const uint64_t first = FromEnvironment("SLUICE_CONNTRACK_SEED", 1);
  for (const bool v6 : {false, true}) {
    Rng rng(first);
    for (uint64_t i = 0; i < Sequences() * 10; ++i) {
      const bool from_a = rng.Chance(1, 2);
      const Bytes frame = RandomOther(rng, v6, from_a);
      ASSERT_NO_FATAL_FAILURE(Compare({frame, from_a, ""}))
          << "seed " << first << " packet " << i << " " << test::ToHex(frame);
    }
  }
}

// Associations of random chunks and tags, most of which begin as they should.
Bytes RandomSctp(Rng& rng, uint64_t step, uint16_t port, bool& from_a) {
  constexpr uint32_t kTags[] = {0x1111'1111, 0x2222'2222};
  static constexpr uint8_t kTypes[] = {0, 0, 1, 2, 3, 4, 4, 5, 5, 6, 7, 8, 9, 10, 11, 14};
  from_a = rng.Chance(1, 2);
  const bool in_order = step < 4;
  if (in_order) from_a = step % 2 == 0;
  const size_t side = from_a ? 0 : 1;
  Bytes l4(12);
  StoreBe16(l4.data(), from_a ? port : 2000);
  StoreBe16(l4.data() + 2, from_a ? 2000 : port);
  uint32_t tag = kTags[1 - side];
  if (step == 0) tag = 0;
  if (!in_order && rng.Chance(1, 4)) tag = rng.Chance(1, 2) ? kTags[side] : uint32_t(rng.Below(2));
  StoreBe32(l4.data() + 4, tag);
  const uint64_t chunks = in_order ? 1 : rng.Below(4) == 0 ? rng.Below(4) : 1;
  for (uint64_t i = 0; i < chunks; ++i) {
    static constexpr uint8_t kHandshake[] = {1, 2, 10, 11};
    const uint8_t type = in_order ? kHandshake[step] : kTypes[rng.Below(std::size(kTypes))];
    Bytes chunk = {type, static_cast<uint8_t>(rng.Below(4) == 0 ? 1 : 0), 0, 20};
    chunk.resize(20);
    StoreBe32(chunk.data() + 4, rng.Chance(7, 8) ? kTags[side] : static_cast<uint32_t>(rng.Next()));
    if (!in_order && rng.Chance(1, 10)) {
      StoreBe16(chunk.data() + 2, static_cast<uint16_t>(rng.Below(24)));
    }
    l4.insert(l4.end(), chunk.begin(), chunk.end());
  }
  PacketBuilder b = PacketBuilder().Ethernet("02:00:00:00:00:aa", "02:00:00:00:00:01");
  from_a ? b.Ipv4("10.0.0.2", "192.0.2.9") : b.Ipv4("192.0.2.9", "10.0.0.2");
  return b.Protocol(132).Payload(l4).Build();
}

TEST_F(AgainstTheKernel, Sctp) {
  kernel.Sysctl("checksum", "0");  // we do not verify the CRC
  settings.checksum = false;
  const uint64_t first = FromEnvironment("SLUICE_CONNTRACK_SEED", 1);
  for (uint64_t seed = first; seed < first + Sequences(); ++seed) {
    Rng rng(seed);
    const auto port = static_cast<uint16_t>(1024 + seed % 60'000);
    std::string story = "seed " + std::to_string(seed) + "\n";
    const bool orderly = rng.Chance(3, 4);
    const uint64_t packets = 4 + rng.Below(12);
    for (uint64_t i = 0; i < packets; ++i) {
      bool from_a = false;
      const Bytes frame = RandomSctp(rng, orderly ? i : i + 4, port, from_a);
      story += test::ToHex(std::span(frame).subspan(34)) + (from_a ? " a\n" : " b\n");
      ASSERT_NO_FATAL_FAILURE(Compare({frame, from_a, ""})) << story;
      if (static_cast<CtState>(p.ct_state) == CtState::kInvalid) continue;
      const auto theirs = kernel.Find(flow().tuples[0]);
      ASSERT_TRUE(theirs.has_value()) << story;
      ASSERT_EQ(flow().sctp.state, theirs->sctp_state) << story;
      ASSERT_EQ(flow().status & tables::kFlowAssured, theirs->status & tables::kFlowAssured);
    }
  }
  kernel.Sysctl("checksum", "1");
}

TEST_F(AgainstTheKernel, TcpLiberal) {
  kernel.Sysctl("tcp_be_liberal", "1");
  settings.tcp_be_liberal = true;
  RunSequences(Sequences() / 4, false);
  kernel.Sysctl("tcp_be_liberal", "0");
}

TEST_F(AgainstTheKernel, TcpWithOtherSettings) {
  kernel.Sysctl("tcp_loose", "0");
  settings.tcp_loose = false;
  kernel.Sysctl("tcp_ignore_invalid_rst", "1");
  settings.tcp_ignore_invalid_rst = true;
  RunSequences(Sequences() / 4, true);
  kernel.Sysctl("tcp_loose", "1");
  kernel.Sysctl("tcp_ignore_invalid_rst", "0");
}

}  // namespace
}  // namespace sluice::stages
