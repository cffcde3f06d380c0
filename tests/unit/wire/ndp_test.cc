#include "wire/ndp.h"

#include <gtest/gtest.h>

#include "support/packet_builder.h"
#include "wire/ipv6.h"

namespace sluice::wire {
namespace {

using test::Bytes;
using test::PacketBuilder;

const Mac kMac{{2, 0, 0, 0, 0, 1}};
const Mac kOther{{2, 0, 0, 0, 0, 2}};

PacketBuilder From(const char* source, const char* destination) {
  return PacketBuilder().Ipv6(source, destination);
}

NdError Check(const Bytes& packet) {
  const auto ip = Ipv6View::Parse(packet);
  return CheckNd(ip->source(), ip->destination(), ip->hop_limit(), std::span(packet).subspan(40));
}

// RFC 4861 section 7.1.1, 7.1.2, 6.1.1, 6.1.2, 8.1.
TEST(NdpTest, ChecksOfRfc4861) {
  const struct {
    const char* what;
    PacketBuilder packet;
    NdError expected;
  } cases[] = {
      {"NS",
       From("fe80::1", "ff02::1:ff00:2").NeighborSolicitation("fe80::2").SourceLinkLayer(kMac),
       NdError::kNone},
      {"NS, unicast, no option", From("fe80::1", "fe80::2").NeighborSolicitation("fe80::2"),
       NdError::kNone},
      {"hop limit 254", From("fe80::1", "fe80::2").NeighborSolicitation("fe80::2").HopLimit(254),
       NdError::kHopLimit},
      {"checksum", From("fe80::1", "fe80::2").NeighborSolicitation("fe80::2").BadChecksum(),
       NdError::kChecksum},
      {"code", From("fe80::1", "fe80::2").HopLimit(255).Icmpv6(135, 1).Payload(16), NdError::kCode},
      {"short", From("fe80::1", "fe80::2").HopLimit(255).Icmpv6(135, 0).Payload(15),
       NdError::kTooShort},
      {"target a group", From("fe80::1", "fe80::2").NeighborSolicitation("ff02::2"),
       NdError::kTarget},
      {"option of length 0",
       From("fe80::1", "fe80::2")
           .NeighborSolicitation("fe80::2")
           .NdOption({14, 0, 0, 0, 0, 0, 0, 0}),
       NdError::kOptions},
      {"option beyond the end",
       From("fe80::1", "fe80::2")
           .NeighborSolicitation("fe80::2")
           .NdOption({14, 2, 0, 0, 0, 0, 0, 0}),
       NdError::kOptions},
      {"bytes after the options",
       From("fe80::1", "fe80::2").NeighborSolicitation("fe80::2").NdOption({14, 1, 0}),
       NdError::kOptions},
      {"unknown option",
       From("fe80::1", "fe80::2")
           .NeighborSolicitation("fe80::2")
           .NdOption({14, 1, 0, 0, 0, 0, 0, 0}),
       NdError::kNone},
      {"link-layer address of another length",
       From("fe80::1", "fe80::2")
           .NeighborSolicitation("fe80::2")
           .NdOption({1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}),
       NdError::kOptions},
      {"DAD", From("::", "ff02::1:ff00:2").NeighborSolicitation("fe80::2"), NdError::kNone},
      {"DAD to a host", From("::", "fe80::2").NeighborSolicitation("fe80::2"),
       NdError::kDestination},
      {"DAD to all nodes", From("::", "ff02::1").NeighborSolicitation("fe80::2"),
       NdError::kDestination},
      {"DAD with a link-layer address",
       From("::", "ff02::1:ff00:2").NeighborSolicitation("fe80::2").SourceLinkLayer(kMac),
       NdError::kLinkLayerFromUnspecified},
      {"NA", From("fe80::2", "fe80::1").NeighborAdvertisement("fe80::2", false, true, true),
       NdError::kNone},
      {"NA to all, unsolicited",
       From("fe80::2", "ff02::1").NeighborAdvertisement("fe80::2", false, false, true),
       NdError::kNone},
      {"NA to all, solicited",
       From("fe80::2", "ff02::1").NeighborAdvertisement("fe80::2", false, true, true),
       NdError::kDestination},
      {"NA, target a group",
       From("fe80::2", "fe80::1").NeighborAdvertisement("ff02::1", false, true, true),
       NdError::kTarget},
      {"RS", From("fe80::1", "ff02::2").RouterSolicitation().SourceLinkLayer(kMac), NdError::kNone},
      {"RS from ::", From("::", "ff02::2").RouterSolicitation(), NdError::kNone},
      {"RS from :: with address", From("::", "ff02::2").RouterSolicitation().SourceLinkLayer(kMac),
       NdError::kLinkLayerFromUnspecified},
      {"RA", From("fe80::1", "ff02::1").RouterAdvertisement(1800), NdError::kNone},
      {"RA from a global address", From("2001:db8::1", "ff02::1").RouterAdvertisement(1800),
       NdError::kSource},
      {"redirect", From("fe80::1", "2001:db8::2").Redirect("fe80::9", "2001:db8:5::1"),
       NdError::kNone},
      {"redirect, on link", From("fe80::1", "2001:db8::2").Redirect("2001:db8::5", "2001:db8::5"),
       NdError::kNone},
      {"redirect, target global",
       From("fe80::1", "2001:db8::2").Redirect("2001:db8::9", "2001:db8::5"), NdError::kTarget},
      {"redirect of a group", From("fe80::1", "2001:db8::2").Redirect("fe80::9", "ff05::1"),
       NdError::kDestination},
      {"redirect from a global address",
       From("2001:db8::1", "2001:db8::2").Redirect("fe80::9", "::2"), NdError::kSource},
      {"echo", From("fe80::1", "fe80::2").Icmpv6Echo(1, 2), NdError::kNotNd},
  };
  for (const auto& c : cases) EXPECT_EQ(Check(c.packet.Build()), c.expected) << c.what;
  EXPECT_EQ(CheckNd(Ipv6(), Ipv6(), 255, {}), NdError::kTooShort);
}

TEST(NdpTest, ReadsFields) {
  const auto na = From("fe80::2", "fe80::1")
                      .NeighborAdvertisement("2001:db8::5", true, false, true)
                      .TargetLinkLayer(kMac)
                      .TargetLinkLayer(kOther)
                      .Build();
  const auto view = NdView::Parse(std::span(na).subspan(40));
  ASSERT_TRUE(view);
  EXPECT_TRUE(view->from_router());
  EXPECT_FALSE(view->solicited());
  EXPECT_TRUE(view->override_flag());
  EXPECT_EQ(ToString(view->target()), "2001:db8::5");
  EXPECT_EQ(view->target_link_layer(), kMac) << "the first one counts";
  EXPECT_EQ(view->source_link_layer(), std::nullopt);
  const auto ra = From("fe80::2", "ff02::1")
                      .RouterAdvertisement(1800, 63)
                      .NdOption({5, 1, 0, 0, 0, 0, 5, 0xdc})
                      .SourceLinkLayer(kMac)
                      .Build();
  const auto router = NdView::Parse(std::span(ra).subspan(40));
  ASSERT_TRUE(router);
  EXPECT_EQ(router->router_lifetime_seconds(), 1800);
  EXPECT_EQ(router->hop_limit(), 63);
  EXPECT_EQ(router->source_link_layer(), kMac);
  const auto redirect = From("fe80::1", "fe80::2").Redirect("fe80::9", "2001:db8::7").Build();
  const auto moved = NdView::Parse(std::span(redirect).subspan(40));
  EXPECT_EQ(ToString(moved->target()), "fe80::9");
  EXPECT_EQ(ToString(moved->redirect_destination()), "2001:db8::7");
}

TEST(NdpTest, EmittedFramesEqualTheBuilder) {
  const Ipv6 target = *ParseIpv6("2001:db8::abcd:ef01");
  const Ipv6 source = *ParseIpv6("fe80::1");
  const Ipv6 group = target.SolicitedNode();
  EXPECT_EQ(ToString(MulticastMac(group)), "33:33:ff:cd:ef:01");
  Bytes out(kMaxNdFrameSize);
  for (const bool with_mac : {true, false}) {
    const std::optional<Mac> link_layer = with_mac ? std::optional(kMac) : std::nullopt;
    PacketBuilder ns;
    ns.Ethernet(kMac, MulticastMac(group)).Ipv6(source, group).NeighborSolicitation(target);
    if (with_mac) ns.SourceLinkLayer(kMac);
    size_t size = EmitNeighborSolicitationFrame(out, MulticastMac(group), kMac,
                                                {source, group, target, link_layer});
    EXPECT_EQ(test::ToHex(std::span(out).first(size)), test::ToHex(ns.Build()));
    for (int flags = 0; flags < 8; ++flags) {
      PacketBuilder na;
      na.Ethernet(kMac, kOther)
          .Ipv6(target, source)
          .NeighborAdvertisement(target, (flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0);
      if (with_mac) na.TargetLinkLayer(kMac);
      size = EmitNeighborAdvertisementFrame(out, kOther, kMac,
                                            {target, source, target, link_layer, (flags & 1) != 0,
                                             (flags & 2) != 0, (flags & 4) != 0});
      EXPECT_EQ(test::ToHex(std::span(out).first(size)), test::ToHex(na.Build()));
    }
  }
  for (size_t size = 0; size < kMaxNdFrameSize; ++size) {
    EXPECT_EQ(EmitNeighborSolicitationFrame(std::span(out).first(size), kMac, kMac,
                                            {source, group, target, kMac}),
              0u);
  }
}

}  // namespace
}  // namespace sluice::wire
