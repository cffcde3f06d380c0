// The interpreter against libpcap's own: the same programs on the same bytes.
#include "dataplane/packet_filter.h"

#include <gtest/gtest.h>
#include <pcap/pcap.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace sluice::dataplane {
namespace {

std::vector<FilterInstruction> Converted(const bpf_program& program) {
  std::vector<FilterInstruction> out;
  for (u_int i = 0; i < program.bf_len; ++i) {
    const bpf_insn& in = program.bf_insns[i];
    out.push_back({in.code, in.jt, in.jf, in.k});
  }
  return out;
}

TEST(PacketFilterTest, DoesWhatLibpcapDoes) {
  std::mt19937 random(42);
  pcap_t* const pcap = pcap_open_dead(DLT_EN10MB, 65535);
  // So that filters find what they look for often enough.
  const std::vector<std::vector<uint8_t>> shapes = {
      {0x08, 0x00, 0x45}, {0x08, 0x00, 0x46}, {0x86, 0xdd, 0x60}, {0x81, 0x00, 0x00}, {0x08, 0x06}};
  int matched = 0, compared = 0;
  for (const char* text :
       {"ip", "ip6", "arp", "tcp", "udp port 53", "tcp dst port 443 and ip[8] > 60",
        "host 10.0.0.5", "net 10.0.0.0/8 or ip6 net 2001:db8::/32", "vlan and ip",
        "ip[6:2] & 0x1fff = 0 and tcp[tcpflags] & (tcp-syn|tcp-ack) != 0", "greater 100",
        "less 60 or ether broadcast", "icmp[icmptype] = icmp-echo", "len % 3 = 1 and ip",
        "ether[0] * 3 - ether[1] / 2 > 17 ^ ether[2]", "portrange 1000-40000",
        "not (src or dst port 22)", "ip[2:2] << 1 > 400 or ip[4:4] >> 3 < 0x10000000"}) {
    bpf_program program{};
    ASSERT_EQ(pcap_compile(pcap, &program, text, 1, PCAP_NETMASK_UNKNOWN), 0)
        << text << ": " << pcap_geterr(pcap);
    PacketFilter filter;
    ASSERT_TRUE(PacketFilter::Make(Converted(program), &filter)) << text;
    for (int i = 0; i < 2000; ++i) {
      std::vector<uint8_t> packet(random() % 130);
      for (uint8_t& byte : packet) {
        static constexpr uint8_t kLikely[] = {0, 1, 6, 17, 10, 5, 8, 53, 0x11, 0xbb, 0xff};
        byte = random() % 2 == 0 ? kLikely[random() % sizeof kLikely]
                                 : static_cast<uint8_t>(random());
      }
      const auto& shape = shapes[random() % shapes.size()];
      for (size_t at = 0; at < shape.size() && 12 + at < packet.size(); ++at) {
        packet[12 + at] = shape[at];
      }
      const auto size = static_cast<uint32_t>(packet.size());
      const uint32_t length = size + random() % 50;  // more than was captured
      const uint32_t expected = bpf_filter(program.bf_insns, packet.data(), length, size);
      ASSERT_EQ(filter.Run(packet, length), expected) << text;
      matched += expected != 0 ? 1 : 0;
      ++compared;
    }
    pcap_freecode(&program);
  }
  pcap_close(pcap);
  EXPECT_GT(matched, compared / 20);
}

// Programs of random instructions: what libpcap would refuse is refused, and what is taken ends.
TEST(PacketFilterTest, TakesOnlyWhatCanRun) {
  std::mt19937 random(7);
  int taken = 0;
  for (int i = 0; i < 200'000; ++i) {
    const size_t size = 1 + random() % 6;
    std::vector<FilterInstruction> program(size);
    for (FilterInstruction& in : program) {
      in.code = static_cast<uint16_t>(random() % 16 == 0 ? random() : random() & 0xff);
      in.if_true = static_cast<uint8_t>(random() % 4);
      in.if_false = static_cast<uint8_t>(random() % 4);
      in.k = static_cast<uint32_t>(random() % 3 == 0 ? random() : random() % 20);
    }
    if (random() % 2 == 0) program.back() = {0x06, 0, 0, 1};  // ret 1
    PacketFilter filter;
    const bool ours = PacketFilter::Make(program, &filter);
    if (!ours) continue;
    ++taken;
    std::vector<bpf_insn> theirs;
    for (const FilterInstruction& in : program) {
      theirs.push_back({in.code, in.if_true, in.if_false, in.k});
    }
    ASSERT_NE(bpf_validate(theirs.data(), static_cast<int>(theirs.size())), 0);
    std::vector<uint8_t> packet(random() % 40);
    for (uint8_t& byte : packet) byte = static_cast<uint8_t>(random());
    const auto length = static_cast<uint32_t>(packet.size());
    const uint32_t result = filter.Run(packet, length);
    // Its cells are not cleared before.
    const bool reads_cells = std::any_of(program.begin(), program.end(), [](const auto& in) {
      return in.code == 0x60 || in.code == 0x61;
    });
    if (reads_cells) continue;
    std::string listing;
    for (const bpf_insn& in : theirs) listing += std::string(bpf_image(&in, 0)) + "\n";
    ASSERT_EQ(result, bpf_filter(theirs.data(), packet.data(), length, length)) << listing;
  }
  EXPECT_GT(taken, 1000);
}

TEST(PacketFilterTest, RefusesWhatMustNotRun) {
  const auto fine = [](std::vector<FilterInstruction> program) {
    PacketFilter filter;
    return PacketFilter::Make(std::move(program), &filter);
  };
  const FilterInstruction ret{0x06, 0, 0, 1};
  EXPECT_TRUE(fine({ret}));
  EXPECT_FALSE(fine({}));
  EXPECT_FALSE(fine({{0x00, 0, 0, 1}})) << "no return at the end";
  EXPECT_FALSE(fine({{0x05, 0, 0, 1}, ret})) << "a jump behind the end";
  EXPECT_FALSE(fine({{0x05, 0, 0, 0xffffffff}, ret})) << "a jump back";
  EXPECT_FALSE(fine({{0x15, 1, 0, 0}, ret}));
  EXPECT_FALSE(fine({{0x60, 0, 0, 16}, ret})) << "a cell that is not there";
  EXPECT_FALSE(fine({{0x02, 0, 0, 16}, ret}));
  EXPECT_FALSE(fine({{0x34, 0, 0, 0}, ret})) << "a division by zero";
  EXPECT_FALSE(fine({{0x94, 0, 0, 0}, ret}));
  EXPECT_FALSE(fine({{0x64, 0, 0, 32}, ret})) << "a shift by more than there is";
  EXPECT_FALSE(fine(std::vector<FilterInstruction>(kMaxFilterInstructions + 1, ret)));
  PacketFilter everything;
  EXPECT_TRUE(everything.Matches({}, 0));
}

}  // namespace
}  // namespace sluice::dataplane
