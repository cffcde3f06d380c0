#include "transport/tcp/splice.h"

#include <algorithm>

#include "base/byte_order.h"
#include "transport/common/datagram.h"
#include "wire/tcp.h"

namespace sluice::transport {

namespace {

// Fields of a header with a checksum over them, of which it sums up the changes.
class Fields {
 public:
  explicit Fields(uint8_t* header) : header_(header) {}

  void Put16(size_t at, uint16_t value) {
    sum_ += uint64_t{static_cast<uint16_t>(~LoadBe16(header_ + at))} + value;
    StoreBe16(header_ + at, value);
  }
  // Options need not begin at an even offset; a change there has its halves swapped (RFC 1071, 2B).
  void Add32(size_t at, uint32_t difference) {
    const uint32_t before = LoadBe32(header_ + at);
    const uint32_t after = before + difference;
    const uint16_t sum = wire::Fold(uint64_t{static_cast<uint32_t>(~before)} + after);
    sum_ += (at & 1) != 0 ? __builtin_bswap16(sum) : sum;
    StoreBe32(header_ + at, after);
  }
  uint64_t sum() const { return sum_; }

 private:
  uint8_t* const header_;
  uint64_t sum_ = 0;
};

void TranslateOptions(Fields& fields, const wire::TcpView& tcp, const sluice_splice& map) {
  const uint8_t* const begin = tcp.options().data() - wire::TcpView::kMinSize;
  wire::TcpOptionIterator options(tcp.options());
  while (const auto option = options.Next()) {
    const auto at = static_cast<size_t>(option->bytes.data() - begin);
    const size_t size = option->bytes.size();
    if (option->kind == wire::kTcpOptionTimestamps && size == 10 && map.timestamps != 0) {
      fields.Add32(at + 2, map.tsval);
      if (tcp.ack()) fields.Add32(at + 6, map.tsecr);
    } else if (option->kind == wire::kTcpOptionSack) {
      for (size_t block = 2; block + 4 <= size; block += 4) fields.Add32(at + block, map.ack);
    }
  }
}

uint16_t TranslateWindow(uint16_t window, const sluice_splice& map) {
  const uint32_t wide = uint32_t{window} << map.window_left >> map.window_right;
  return static_cast<uint16_t>(std::min<uint32_t>(wide, 0xffff));
}

// A header without options of any kind. DSCP, ECN, IPv4's Don't Fragment and identification, and IPv6's flow
// label are the peer's.
void WriteIpHeader(packet::Packet& p, const Tuple& leaves, uint8_t ttl) {
  const bool v4 = leaves.is_v4();
  const uint32_t size = IpHeaderSize(v4);
  const auto payload = static_cast<uint16_t>(L4LengthOf(p));
  const uint8_t* const old = p.l3();
  uint8_t* const at = p.l4() - size;
  if (v4) {
    const wire::Ipv4View ip(old);
    const wire::Ipv4Fields fields = {
        .tos = ip.tos(),
        .payload_length = payload,
        .id = ip.id(),
        .fragment_field = static_cast<uint16_t>(ip.fragment_field() & wire::kIpv4DontFragment),
        .ttl = ttl,
        .protocol = p.l4_protocol,
        .source = leaves.local.address.v4(),
        .destination = leaves.remote.address.v4()};
    wire::EmitIpv4Header({at, size}, fields);
  } else {
    const wire::Ipv6View ip(old);
    const uint8_t traffic_class = ip.traffic_class();
    const uint32_t flow_label = ip.flow_label();
    wire::EmitIpv6Header({at, size}, {.traffic_class = traffic_class,
                                      .flow_label = flow_label,
                                      .payload_length = payload,
                                      .next_header = p.l4_protocol,
                                      .hop_limit = ttl,
                                      .source = leaves.local.address.v6(),
                                      .destination = leaves.remote.address.v6()});
  }
  const auto shorter = static_cast<uint16_t>(at - old);
  p.data += shorter;
  p.length -= shorter;
  p.segment_length = static_cast<uint16_t>(p.segment_length - shorter);
  p.l4_offset = static_cast<uint16_t>(p.l4_offset - shorter);
}

}  // namespace

void TranslateSegment(packet::Packet& p, const Tuple& leaves, const sluice_splice& map,
                      uint8_t ttl) {
  const wire::TcpView tcp(p.l4());
  const IpEnds before = EndsOf(p);
  const auto pseudo = [&](const IpAddress& source, const IpAddress& destination) {
    return wire::Fold(PseudoSumOf(source, destination, p.l4_protocol, L4LengthOf(p)));
  };
  Fields fields(p.l4());
  fields.Put16(0, leaves.local.port);
  fields.Put16(2, leaves.remote.port);
  fields.Add32(4, map.seq);
  if (tcp.ack()) fields.Add32(8, map.ack);
  fields.Put16(14, TranslateWindow(tcp.window(), map));
  TranslateOptions(fields, tcp, map);
  const uint64_t sum =
      uint64_t{static_cast<uint16_t>(~tcp.checksum())} + fields.sum() +
      static_cast<uint16_t>(~pseudo(before.source, before.destination)) +
      pseudo(leaves.local.address, leaves.remote.address);
  StoreBe16(p.l4() + 16, wire::Checksum(sum));
  WriteIpHeader(p, leaves, ttl);
}

}  // namespace sluice::transport
