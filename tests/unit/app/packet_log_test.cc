#include "app/packet_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "control/packet_text/packet_text.h"

namespace sluice::app {
namespace {

using ::testing::HasSubstr;

std::string Line(const std::string& words, std::string_view prefix = "", uint32_t mark = 0,
                 size_t captured = 128) {
  const auto frame = control::ParsePacketText(words);
  EXPECT_TRUE(frame.ok()) << frame.status();
  const std::span<const uint8_t> l3 = std::span(*frame).subspan(14);
  return FormatLogLine({.prefix = prefix,
                        .in = "lan0",
                        .out = "wan0",
                        .l3 = l3.first(std::min(l3.size(), captured)),
                        .l3_length = static_cast<uint32_t>(l3.size()),
                        .mark = mark});
}

TEST(PacketLogTest, LooksAsTheKernels) {
  EXPECT_EQ(Line("ip saddr 10.0.0.5 ip daddr 1.1.1.1 ip ttl 63 ip id 7 ip frag-off 0x4000 tcp sport "
                 "40000 tcp dport 443 tcp flags syn",
                 "drop: ", 0x1f),
            "drop: IN=lan0 OUT=wan0 SRC=10.0.0.5 DST=1.1.1.1 LEN=40 TOS=0x00 PREC=0x00 TTL=63 ID=7 "
            "DF PROTO=TCP SPT=40000 DPT=443 WINDOW=64240 RES=0x00 SYN URGP=0 MARK=0x1f");
  EXPECT_EQ(Line("ip saddr 10.0.0.5 ip daddr 1.1.1.1 ip dscp cs7 ip ecn 2 tcp sport 1 tcp dport 2 "
                 "tcp flags 0xff"),
            "IN=lan0 OUT=wan0 SRC=10.0.0.5 DST=1.1.1.1 LEN=40 TOS=0x02 PREC=0xE0 TTL=64 ID=0 "
            "PROTO=TCP SPT=1 DPT=2 WINDOW=64240 RES=0x00 CWR ECE URG ACK PSH RST SYN FIN URGP=0");
  EXPECT_EQ(Line("ip6 saddr 2001:db8::5 ip6 daddr ::1 ip6 flowlabel 9 ip6 dscp cs1 udp sport 53 udp "
                 "dport 5353 payload size 4"),
            "IN=lan0 OUT=wan0 SRC=2001:0db8:0000:0000:0000:0000:0000:0005 "
            "DST=0000:0000:0000:0000:0000:0000:0000:0001 LEN=52 TC=32 HOPLIMIT=64 FLOWLBL=9 "
            "PROTO=UDP SPT=53 DPT=5353 LEN=12");
  EXPECT_EQ(Line("ip saddr 10.0.0.5 ip daddr 1.1.1.1 icmp type echo-request icmp id 5 icmp sequence "
                 "6"),
            "IN=lan0 OUT=wan0 SRC=10.0.0.5 DST=1.1.1.1 LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=0 "
            "PROTO=ICMP TYPE=8 CODE=0 ID=5 SEQ=6");
  EXPECT_THAT(Line("ip6 saddr ::5 ip6 daddr ::1 icmpv6 type echo-reply icmpv6 id 5"),
              HasSubstr("PROTO=ICMPv6 TYPE=129 CODE=0 ID=5 SEQ=1"));
  EXPECT_THAT(Line("ip saddr 1.1.1.1 ip daddr 2.2.2.2 ip frag-off 0x2064 meta l4proto udp payload "
                   "size 8"),
              HasSubstr("ID=0 MF FRAG:100 PROTO=UDP"));
  EXPECT_THAT(Line("ip saddr 1.1.1.1 ip daddr 2.2.2.2 meta l4proto gre"), HasSubstr("PROTO=47"));
  EXPECT_THAT(Line("ip saddr 1.1.1.1 ip daddr 2.2.2.2 meta l4proto esp payload size 8"),
              HasSubstr("PROTO=ESP SPI=0x0"));
}

TEST(PacketLogTest, ErrorsQuoteThePacketThatTheyAreAbout) {
  auto error = *control::ParsePacketText(
      "ip saddr 192.0.2.1 ip daddr 10.0.0.5 icmp type destination-unreachable icmp code 4 icmp mtu "
      "1400 payload size 28");
  const auto inner = *control::ParsePacketText(
      "ip saddr 10.0.0.5 ip daddr 1.1.1.1 udp sport 7 udp dport 9");
  std::copy(inner.begin() + 14, inner.end(), error.end() - 28);
  const std::span<const uint8_t> l3 = std::span(error).subspan(14);
  EXPECT_EQ(FormatLogLine({.l3 = l3, .l3_length = 56}),
            "IN= OUT= SRC=192.0.2.1 DST=10.0.0.5 LEN=56 TOS=0x00 PREC=0x00 TTL=64 ID=0 PROTO=ICMP "
            "TYPE=3 CODE=4 [SRC=10.0.0.5 DST=1.1.1.1 LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=0 "
            "PROTO=UDP SPT=7 DPT=9 LEN=8 ] MTU=1400");
}

TEST(PacketLogTest, WhatIsMissingIsSaid) {
  EXPECT_THAT(Line("ip saddr 1.1.1.1 ip daddr 2.2.2.2 tcp dport 1", "", 0, 30),
              HasSubstr("PROTO=TCP INCOMPLETE [20 bytes]"));
  EXPECT_EQ(Line("ip saddr 1.1.1.1 ip daddr 2.2.2.2 tcp dport 1", "", 0, 10),
            "IN=lan0 OUT=wan0 TRUNCATED");
  EXPECT_EQ(FormatLogLine({.prefix = "a\nb\x1b", .in = "lan0"}), "a?b?IN=lan0 OUT= TRUNCATED");
}

TEST(PacketLogTest, AnyBytesMakeALine) {
  std::mt19937 random(3);
  for (int i = 0; i < 20'000; ++i) {
    std::vector<uint8_t> bytes(random() % 129);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    if (!bytes.empty()) bytes[0] = random() % 2 == 0 ? 0x45 : 0x60;
    if (bytes.size() > 9) {
      static constexpr uint8_t kProtocols[] = {0, 1, 6, 17, 43, 44, 50, 51, 58, 60, 136, 200};
      bytes[bytes[0] == 0x45 ? 9 : 6] = kProtocols[random() % sizeof kProtocols];
    }
    const std::string line = FormatLogLine({.l3 = bytes, .l3_length = 1500});
    EXPECT_EQ(line.find('\n'), std::string::npos);
    EXPECT_EQ(line.rfind("IN= OUT= ", 0), 0u);
  }
}

TEST(PacketLogTest, Levels) {
  EXPECT_EQ(LogLevelOf(0), LogLevel::kError);
  EXPECT_EQ(LogLevelOf(4), LogLevel::kWarning);
  EXPECT_EQ(LogLevelOf(6), LogLevel::kInfo);
  EXPECT_EQ(LogLevelOf(7), LogLevel::kDebug);
}

}  // namespace
}  // namespace sluice::app
