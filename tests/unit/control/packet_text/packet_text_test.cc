#include "control/packet_text/packet_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "wire/checksum.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/protocol.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace sluice::control {
namespace {

using ::testing::HasSubstr;

std::vector<uint8_t> Frame(const std::string& text) {
  const auto frame = ParsePacketText(text);
  EXPECT_TRUE(frame.ok()) << text << ": " << frame.status();
  return frame.value_or(std::vector<uint8_t>());
}
std::string Refusal(const std::string& text) {
  const auto frame = ParsePacketText(text);
  EXPECT_TRUE(absl::IsInvalidArgument(frame.status())) << text;
  return std::string(frame.status().message());
}
std::span<const uint8_t> Ip(const std::vector<uint8_t>& frame) {
  return std::span(frame).subspan(wire::kEthernetHeaderSize);
}

TEST(PacketTextTest, TheTcpPacketOfTheManual) {
  const auto frame = Frame("ip saddr 10.0.0.5 ip daddr 1.1.1.1 tcp dport 443 tcp flags syn");
  ASSERT_EQ(frame.size(), 14u + 20 + 20);
  EXPECT_EQ(wire::EthernetView(frame.data()).ether_type(), wire::kEtherTypeIpv4);
  EXPECT_TRUE(wire::EthernetView(frame.data()).source().IsZero());
  EXPECT_EQ(wire::CheckIpv4(Ip(frame)), std::nullopt);
  const wire::Ipv4View ip(Ip(frame).data());
  EXPECT_EQ(ip.source(), Ipv4(10, 0, 0, 5));
  EXPECT_EQ(ip.destination(), Ipv4(1, 1, 1, 1));
  EXPECT_EQ(ip.ttl(), 64);
  const auto tcp = wire::TcpView::Parse(Ip(frame).subspan(20));
  ASSERT_TRUE(tcp);
  EXPECT_EQ(tcp->source_port(), 49152);
  EXPECT_EQ(tcp->destination_port(), 443);
  EXPECT_EQ(tcp->flags(), wire::kTcpSyn);
  EXPECT_EQ(wire::Fold(ip.PseudoSum() + uint64_t{wire::Sum(Ip(frame).subspan(20))}), 0xffff);
}

TEST(PacketTextTest, EveryFieldOfIpv4AndTcp) {
  const auto frame = Frame(
      "ether saddr 02:00:00:00:00:01 ether daddr 02:00:00:00:00:02 "
      "ip saddr 10.0.0.5 ip daddr 1.1.1.1 ip ttl 3 ip id 0x1234 ip dscp ef ip ecn 1 "
      "ip frag-off 0x4000 ip length 100 ip protocol tcp "
      "tcp sport 1 tcp dport 65535 tcp flags syn|ack tcp sequence 4294967295 tcp ackseq 7 "
      "tcp window 9 tcp urgptr 2 tcp option maxseg size 1460");
  EXPECT_EQ(wire::EthernetView(frame.data()).source(), *ParseMac("02:00:00:00:00:01"));
  EXPECT_EQ(wire::EthernetView(frame.data()).destination(), *ParseMac("02:00:00:00:00:02"));
  ASSERT_EQ(frame.size(), 114u);
  const wire::Ipv4View ip(Ip(frame).data());
  EXPECT_EQ(ip.ttl(), 3);
  EXPECT_EQ(ip.id(), 0x1234);
  EXPECT_EQ(ip.tos(), 46 << 2 | 1);
  EXPECT_TRUE(ip.dont_fragment());
  EXPECT_EQ(ip.total_length(), 100);
  const wire::TcpView tcp(Ip(frame).data() + 20);
  EXPECT_EQ(tcp.sequence(), 4294967295u);
  EXPECT_EQ(tcp.acknowledgment(), 7u);
  EXPECT_EQ(tcp.window(), 9);
  EXPECT_EQ(tcp.urgent_pointer(), 2);
  EXPECT_EQ(tcp.flags(), wire::kTcpSyn | wire::kTcpAck);
  const auto option = wire::TcpOptionIterator(tcp.options()).Next();
  ASSERT_TRUE(option);
  EXPECT_EQ(LoadBe16(option->bytes.data() + 2), 1460);
}

TEST(PacketTextTest, UdpIcmpAndSctpInBothFamilies) {
  const auto udp = Frame("ip6 saddr 2001:db8::1 ip6 daddr 2001:db8::2 ip6 hoplimit 9 "
                         "ip6 flowlabel 0x12345 ip6 dscp cs1 udp sport 5 udp dport 53 payload size 3");
  ASSERT_EQ(udp.size(), 14u + 40 + 8 + 3);
  EXPECT_EQ(wire::CheckIpv6(Ip(udp)), std::nullopt);
  const wire::Ipv6View ip(Ip(udp).data());
  EXPECT_EQ(ip.hop_limit(), 9);
  EXPECT_EQ(ip.flow_label(), 0x12345u);
  EXPECT_EQ(ip.traffic_class(), 32);
  EXPECT_EQ(wire::UdpView(Ip(udp).data() + 40).length(), 11);
  EXPECT_EQ(wire::Fold(ip.PseudoSum(17, 11) + uint64_t{wire::Sum(Ip(udp).subspan(40))}), 0xffff);

  const auto zero = Frame("ip saddr 1.2.3.4 ip daddr 5.6.7.8 udp dport 53 udp checksum 0");
  EXPECT_FALSE(wire::UdpView(Ip(zero).data() + 20).has_checksum());

  const auto ping = Frame("ip saddr 1.2.3.4 ip daddr 5.6.7.8 icmp type echo-request icmp id 7 "
                          "icmp sequence 8");
  const wire::IcmpView icmp(Ip(ping).data() + 20);
  EXPECT_EQ(icmp.type(), wire::kIcmpEchoRequest);
  EXPECT_EQ(icmp.echo_id(), 7);
  EXPECT_EQ(icmp.echo_sequence(), 8);
  EXPECT_EQ(wire::InternetChecksum(Ip(ping).subspan(20)), 0);

  const auto big = Frame("ip6 saddr ::5 ip6 daddr ::6 icmpv6 type packet-too-big icmpv6 mtu 1280");
  EXPECT_EQ(wire::Icmpv6View(Ip(big).data() + 40).mtu(), 1280u);
  EXPECT_TRUE(wire::Icmpv6ChecksumIsRight(*ParseIpv6("::5"), *ParseIpv6("::6"), Ip(big).subspan(40)));

  // The CRC of scapy's SCTP(sport=1, dport=2, tag=3), computed by scapy.
  const auto sctp = Frame("ip saddr 1.2.3.4 ip daddr 5.6.7.8 sctp sport 1 sctp dport 2 sctp vtag 3");
  EXPECT_THAT(std::vector<uint8_t>(sctp.end() - 12, sctp.end()),
              ::testing::ElementsAre(0, 1, 0, 2, 0, 0, 0, 3, 0x09, 0x28, 0xb3, 0x19));

  const auto gre = Frame("ip saddr 1.2.3.4 ip daddr 5.6.7.8 meta l4proto gre payload size 4");
  EXPECT_EQ(gre.size(), 14u + 20 + 4);
  EXPECT_EQ(wire::Ipv4View(Ip(gre).data()).protocol(), 47);
}

TEST(PacketTextTest, SaysWhereAndWhatIsWrong) {
  const std::string head = "ip saddr 10.0.0.5 ip daddr 1.1.1.1 ";  // 36 characters
  EXPECT_THAT(Refusal(head + "tcp dprt 443"),
              HasSubstr("character 40: \"tcp\" has no \"dprt\"; there are: sport, dport, flags"));
  EXPECT_THAT(Refusal(head + "tpc dport 443"), HasSubstr("character 36: unknown word \"tpc\""));
  EXPECT_THAT(Refusal(head + "tcp dport http"),
              HasSubstr("character 46: \"http\" is not a number from 0 to 65535"));
  EXPECT_THAT(Refusal(head + "tcp dport 65536"), HasSubstr("character 46: \"65536\""));
  EXPECT_THAT(Refusal(head + "tcp dport"), HasSubstr("character 45: a value is missing"));
  EXPECT_THAT(Refusal(head + "tcp"), HasSubstr("the description ends after \"tcp\""));
  EXPECT_THAT(Refusal(head + "tcp dport 1 tcp dport 1"), HasSubstr("is said twice"));
  EXPECT_THAT(Refusal(head + "tcp dport 1 udp dport 1"),
              HasSubstr("character 48: \"udp\" does not go with the protocol said before"));
  EXPECT_THAT(Refusal(head + "ip protocol udp tcp dport 1"), HasSubstr("does not go with"));
  EXPECT_THAT(Refusal(head + "tcp dport 1 ip protocol udp"), HasSubstr("does not go with"));
  EXPECT_THAT(Refusal(head + "ip6 hoplimit 3"), HasSubstr("the other IP version"));
  EXPECT_THAT(Refusal(head + "icmpv6 type 1"), HasSubstr("the other IP version"));
  EXPECT_THAT(Refusal(head + "tcp dport 1 tcp flags sin"), HasSubstr("are not TCP flags"));
  EXPECT_THAT(Refusal(head + "tcp option sack"), HasSubstr("maxseg size"));
  EXPECT_THAT(Refusal("ip saddr ::1"), HasSubstr("character 10: \"::1\" is not an address for"));
  EXPECT_THAT(Refusal("ether saddr x"), HasSubstr("is not an Ethernet address"));
  EXPECT_THAT(Refusal("vlan id 5 " + head), HasSubstr("character 1: frames with a VLAN tag"));
  EXPECT_THAT(Refusal("arp operation request"), HasSubstr("--hex"));
  EXPECT_THAT(Refusal(""), HasSubstr("empty"));
}

TEST(PacketTextTest, SaysWhatIsMissing) {
  EXPECT_THAT(Refusal("tcp dport 443"), HasSubstr("character 14: the addresses are missing"));
  EXPECT_THAT(Refusal("ip saddr 1.1.1.1 tcp dport 1"), HasSubstr("\"ip daddr\" is missing"));
  EXPECT_THAT(Refusal("ip6 daddr ::1 tcp dport 1"), HasSubstr("\"ip6 saddr\" is missing"));
  EXPECT_THAT(Refusal("ip saddr 1.1.1.1 ip daddr 1.1.1.2"), HasSubstr("the protocol is missing"));
  EXPECT_THAT(Refusal("ip saddr 1.1.1.1 ip daddr 1.1.1.2 udp sport 1"), HasSubstr("dport"));
}

TEST(PacketTextTest, ALaterFragmentHasNoTransportHeader) {
  const std::string head = "ip saddr 1.1.1.1 ip daddr 1.1.1.2 ip frag-off 0x2001 ";
  const auto frame = Frame(head + "meta l4proto tcp payload size 8");
  EXPECT_EQ(frame.size(), 14u + 20 + 8);
  EXPECT_TRUE(wire::Ipv4View(Ip(frame).data()).IsLaterFragment());
  EXPECT_THAT(Refusal(head + "tcp dport 1"), HasSubstr("has no transport header"));
  EXPECT_THAT(Refusal(head + "icmp type 8"), HasSubstr("has no transport header"));
}

TEST(PacketTextTest, LengthsMustFit) {
  const std::string head = "ip saddr 1.1.1.1 ip daddr 1.1.1.2 udp dport 1 ";
  EXPECT_EQ(Frame(head + "ip length 28").size(), 14u + 28);
  EXPECT_EQ(Frame(head + "ip length 30 payload size 2").size(), 14u + 30);
  EXPECT_EQ(Frame(head + "ip length 65535").size(), 14u + 65535);
  EXPECT_THAT(Refusal(head + "ip length 27"), HasSubstr("the headers have 28 bytes"));
  EXPECT_THAT(Refusal(head + "ip length 30 payload size 3"), HasSubstr("have 31 bytes"));
  EXPECT_THAT(Refusal(head + "payload size 65508"), HasSubstr("longer than 65535"));
  EXPECT_EQ(Frame(head + "payload size 65507").size(), 14u + 65535);
}

TEST(DescribePacketTest, SaysWhatThePacketIs) {
  for (const char* text :
       {"ip saddr 10.0.0.5 ip daddr 1.1.1.1 tcp sport 40000 tcp dport 443 tcp flags syn,ack",
        "ip saddr 10.0.0.5 ip daddr 1.1.1.1 ip dscp af41 ip ttl 1 icmp type echo-reply icmp id 77 "
        "payload size 56",
        "ip6 saddr 2001:db8::1 ip6 daddr 2001:db8::2 udp sport 53 udp dport 5353 payload size 100",
        "ip saddr 10.0.0.5 ip daddr 1.1.1.1 ip frag-off 0x2064 meta l4proto ospf payload size 8",
        "ip saddr 1.2.3.4 ip daddr 5.6.7.8 icmp type destination-unreachable icmp code 4 icmp mtu "
        "1400 payload size 28"}) {
    EXPECT_EQ(DescribePacket(Frame(text)), text);
  }
  EXPECT_EQ(DescribePacket({}), "(not a whole Ethernet header)");
  std::vector<uint8_t> arp(42);
  StoreBe16(arp.data() + 12, 0x0806);
  EXPECT_EQ(DescribePacket(arp), "ether type 0x0806");
  EXPECT_THAT(DescribePacket(arp, true), HasSubstr("ether saddr 00:00:00:00:00:00"));
  StoreBe16(arp.data() + 12, 0x0800);
  EXPECT_EQ(DescribePacket(arp), "(not a whole IPv4 header)");
}

TEST(DescribePacketTest, ACaptureThatIsCutShortKeepsItsLength) {
  auto frame = Frame("ip saddr 10.0.0.5 ip daddr 1.1.1.1 udp dport 9 payload size 1000");
  frame.resize(64);
  EXPECT_THAT(DescribePacket(frame), HasSubstr("payload size 1000"));
}

// What is described and read again is the same frame.
TEST(DescribePacketTest, RoundTripsRandomDescriptions) {
  std::mt19937 random(20240607);
  const auto pick = [&](uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random); };
  for (int i = 0; i < 3000; ++i) {
    const bool v4 = pick(2) == 0;
    const std::string ip = v4 ? "ip" : "ip6";
    std::string text = v4 ? "ip saddr 10.0.0.5 ip daddr 192.0.2.9" : "ip6 saddr ::5 ip6 daddr ::9";
    const auto maybe = [&](const std::string& words, uint32_t most) {
      if (pick(2) == 0) text += " " + words + " " + std::to_string(pick(most + 1));
    };
    maybe(ip + (v4 ? " ttl" : " hoplimit"), 255);
    maybe(ip + " dscp", 63);
    maybe(ip + " ecn", 3);
    maybe(v4 ? "ip id" : "ip6 flowlabel", v4 ? 65535 : 0xfffff);
    switch (pick(5)) {
      case 0:
        text += " tcp dport " + std::to_string(pick(65536));
        maybe("tcp sport", 65535);
        maybe("tcp flags", 255);
        maybe("tcp sequence", 0x7fffffff);
        maybe("tcp option maxseg size", 65535);
        break;
      case 1:
        text += " udp dport " + std::to_string(pick(65536));
        maybe("udp checksum", 0);
        break;
      case 2:
        text += v4 ? " icmp type " : " icmpv6 type ";
        text += std::to_string(pick(256));
        maybe(v4 ? "icmp code" : "icmpv6 code", 255);
        maybe(v4 ? "icmp id" : "icmpv6 id", 65535);
        break;
      case 3:
        text += " sctp dport " + std::to_string(pick(65536));
        maybe("sctp vtag", 0x7fffffff);
        break;
      default:
        text += " meta l4proto gre";
    }
    maybe("payload size", 200);
    const auto frame = Frame(text);
    const std::string description = DescribePacket(frame, true);
    EXPECT_EQ(Frame(description), frame) << text << "\n" << description;
  }
}

}  // namespace
}  // namespace sluice::control
