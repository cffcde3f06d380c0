// Bytes to every parser of userspace/wire, and what the parsers accept back through the emitters:
// the bytes must come out again. The input is a frame.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "support/packet_builder.h"
#include "support/parse_everything.h"
#include "wire/arp.h"
#include "wire/checksum.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/ndp.h"
#include "wire/udp.h"

namespace sluice::wire {
namespace {

using Span = std::span<const uint8_t>;

void Require(bool condition) {
  if (!condition) std::abort();
}

bool StartsWith(Span bytes, Span start) {
  return bytes.size() >= start.size() && std::equal(start.begin(), start.end(), bytes.begin());
}

void RoundTripArp(Span bytes) {
  const auto arp = ArpView::Parse(bytes);
  if (!arp || LoadBe16(bytes.data()) != 1) return;  // the emitter writes hardware type 1 only
  uint8_t out[ArpView::kSize];
  Require(EmitArp(out, {arp->operation(), arp->sender_mac(), arp->sender_ip(), arp->target_mac(),
                        arp->target_ip()}) == sizeof out);
  Require(StartsWith(bytes, out));
}

void RoundTripIpv4(Span bytes) {
  if (CheckIpv4(bytes)) return;
  const Ipv4View ip(bytes.data());
  Require(test::NaiveSum(bytes.first(ip.header_length())) == 0xffff);
  uint8_t out[Ipv4View::kMaxSize];
  const size_t size = EmitIpv4Header(out,
                                     {.tos = ip.tos(),
                                      .payload_length = ip.payload_length(),
                                      .id = ip.id(),
                                      .fragment_field = ip.fragment_field(),
                                      .ttl = ip.ttl(),
                                      .protocol = ip.protocol(),
                                      .source = ip.source(),
                                      .destination = ip.destination()},
                                     ip.options());
  Require(size == ip.header_length());
  // A field of all ones is right where the emitter writes the other zero.
  if (ip.checksum() == 0xffff) StoreBe16(out + 10, 0xffff);
  Require(StartsWith(bytes, Span(out).first(size)));
  if (ip.ttl() == 0) return;
  DecrementTtl(out);
  Require(!CheckIpv4(Span(out).first(size), ip.total_length()));
}

void RoundTripNd(const Ipv6View& ip, Span message) {
  if (CheckNd(ip.source(), ip.destination(), ip.hop_limit(), message) != NdError::kNone) return;
  const auto nd = NdView::Parse(message);
  Require(nd.has_value());
  uint8_t out[32];
  if (nd->type() == kIcmpv6NeighborSolicitation) {
    const size_t size = EmitNeighborSolicitation(
        out, {ip.source(), ip.destination(), nd->target(), nd->source_link_layer()});
    const auto again = Span(out).first(size);
    Require(CheckNd(ip.source(), ip.destination(), 255, again) == NdError::kNone);
    Require(NdView::Parse(again)->source_link_layer() == nd->source_link_layer());
  }
  if (nd->type() == kIcmpv6NeighborAdvertisement) {
    const size_t size = EmitNeighborAdvertisement(
        out, {ip.source(), ip.destination(), nd->target(), nd->target_link_layer(),
              nd->from_router(), nd->solicited(), nd->override_flag()});
    const auto again = Span(out).first(size);
    Require(CheckNd(ip.source(), ip.destination(), 255, again) == NdError::kNone);
    Require(NdView::Parse(again)->target_link_layer() == nd->target_link_layer());
  }
}

void RoundTripIpv6(Span bytes) {
  if (CheckIpv6(bytes)) return;
  const Ipv6View ip(bytes.data());
  uint8_t out[Ipv6View::kSize];
  Require(EmitIpv6Header(out, {.traffic_class = ip.traffic_class(),
                               .flow_label = ip.flow_label(),
                               .payload_length = ip.payload_length(),
                               .next_header = ip.next_header(),
                               .hop_limit = ip.hop_limit(),
                               .source = ip.source(),
                               .destination = ip.destination()}) == sizeof out);
  Require(StartsWith(bytes, out));
  if (ip.next_header() == kProtocolIcmpv6) {
    RoundTripNd(ip, bytes.subspan(Ipv6View::kSize, ip.payload_length()));
  }
}

void RoundTripIcmp(Span bytes) {
  const auto icmp = IcmpView::Parse(bytes);
  if (!icmp) return;
  std::vector<uint8_t> out(bytes.size());
  const Span body = bytes.subspan(IcmpView::kSize);
  Require(EmitIcmp(out, icmp->type(), icmp->code(), icmp->rest(), body) == bytes.size());
  Require(test::NaiveSum(out) == 0xffff || test::NaiveSum(out) == 0);
  std::vector<uint8_t> reply = out;
  TurnIntoEchoReply(reply.data());
  Require(test::NaiveSum(reply) == 0xffff || test::NaiveSum(reply) == 0);
}

}  // namespace
}  // namespace sluice::wire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using sluice::wire::Require;
  // A copy of the exact size lets the sanitizer see every byte read beyond it.
  const std::vector<uint8_t> copy(data, data + size);
  const std::span<const uint8_t> bytes(copy);
  Require(sluice::test::ParseEverything(bytes) == sluice::test::ParseEverything(bytes));
  Require(sluice::wire::InternetChecksum(bytes) == sluice::test::NaiveChecksum(bytes));
  const auto l2 = sluice::wire::SkipVlanTags(bytes);
  if (!l2) return 0;
  const auto l3 = bytes.subspan(l2->offset);
  sluice::wire::RoundTripArp(l3);
  sluice::wire::RoundTripIpv4(l3);
  sluice::wire::RoundTripIpv6(l3);
  sluice::wire::RoundTripIcmp(l3);
  return 0;
}
