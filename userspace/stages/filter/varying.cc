// Which bits of what rules load differ between packets of one flow: see flow_path.h, whose packets
// these are.
#include <cstring>

#include "stages/filter/evaluation.h"
#include "wire/ethernet.h"
#include "wire/protocol.h"
#include "wire/tcp.h"

namespace sluice::stages {

using tables::CtState;
using tables::ElementSet;
using tables::Load;
using tables::Source;

namespace {

// By byte of the header, the bits that differ between packets of a flow.
constexpr uint8_t kLinkBits[wire::kEthernetHeaderSize] = {
    0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0};  // the sender's address
constexpr uint8_t kIpv4Bits[20] = {
    0,    0xff,              // DSCP, ECN
    0xff, 0xff, 0xff, 0xff,  // length, id
    0xc0, 0,                 // DF, and a bit that means nothing; not MF and the offset
    0xff, 0,                 // TTL
    0xff, 0xff};             // checksum
constexpr uint8_t kIpv6Bits[40] = {0x0f, 0xff, 0xff, 0xff,  // traffic class, flow label
                                   0xff, 0xff,              // length
                                   0,    0xff};             // hop limit
constexpr uint8_t kTcpBits[20] = {
    0,    0,    0,    0,    0xff, 0xff, 0xff, 0xff, 0xff, 0xff,           // numbers
    0xff, 0xff, 0xff, wire::kTcpPsh, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
constexpr uint8_t kUdpBits[8] = {0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};  // length, checksum

}  // namespace

Evaluation::Known Evaluation::VaryingHeaderBits(const Load& load, uint8_t* out) const {
  const packet::Packet& p = context_.p;
  uint32_t at = load.offset;  // from the link header on
  switch (load.source) {
    case Source::kLink:
      if (context_.in == nullptr) return Known::kAll;  // never there
      break;
    case Source::kNetwork:
      at += p.l3_offset;
      break;
    default:
      at += p.l4_offset;
  }
  const bool tcp = p.l4_protocol == wire::kProtocolTcp;
  const uint8_t* const l3 = is_v4() ? kIpv4Bits : kIpv6Bits;
  const uint8_t* const l4 = tcp ? kTcpBits : kUdpBits;
  const uint32_t end = p.l4_offset + (tcp ? sizeof kTcpBits : sizeof kUdpBits);
  if (at + load.length > end) return Known::kPresenceVaries;
  uint8_t any = 0;
  for (size_t i = 0; i < load.length; ++i, ++at) {
    out[i] = at >= p.l4_offset   ? l4[at - p.l4_offset]
             : at >= p.l3_offset ? l3[at - p.l3_offset]
                                 : kLinkBits[at];
    any |= out[i];
  }
  return any == 0 ? Known::kAll : Known::kSome;
}

Evaluation::Known Evaluation::VaryingBits(const Load& load, uint8_t* out) const {
  std::memset(out, 0, (load.length + 3u) / 4 * 4);
  const auto bits = [&](uint32_t mask) {
    std::memcpy(out, &mask, sizeof mask);
    return mask == 0 ? Known::kAll : Known::kSome;
  };
  const auto all = [&](size_t length) {
    std::memset(out, 0xff, length);
    return Known::kSome;
  };
  if (load.source == Source::kMeta) {
    switch (load.key) {
      case tables::kMetaLength:
        return bits(0xffff);
      case tables::kMetaPriority:
        return bits(priority_varying_);
      case tables::kMetaRandom:
      case tables::kMetaDay:
      case tables::kMetaHour:
        return all(4);
      case tables::kMetaTime:
        return all(8);
      default:
        return Known::kAll;
    }
  }
  if (load.source != Source::kCt) return VaryingHeaderBits(load, out);
  switch (load.key) {
    case tables::kCtState: {
      // Others are followed by another state, or are no connection's.
      const auto state = static_cast<CtState>(ct_state_);
      return state == CtState::kEstablished || state == CtState::kUntracked ||
                     state == CtState::kNone
                 ? Known::kAll
                 : bits(0x4f);
    }
    case tables::kCtStatus:
      if (context_.flow == nullptr) return Known::kAll;
      return bits((tables::kFlowSeenReply | tables::kFlowAssured) & ~context_.flow->status);
    case tables::kCtExpiration:
      return all(4);
    case tables::kCtPackets:
    case tables::kCtBytes:
    case tables::kCtAveragePacket:
      return all(8);
    default:
      return Known::kAll;
  }
}

Variance Evaluation::ReasonOf(const Load& load) const {
  if (load.source == Source::kMeta) {
    switch (load.key) {
      case tables::kMetaLength:
        return Variance::kPacketLength;
      case tables::kMetaPriority:
        return priority_reason_;
      case tables::kMetaRandom:
        return Variance::kRandom;
      default:
        return Variance::kTime;
    }
  }
  if (load.source == Source::kCt) {
    return load.key == tables::kCtState || load.key == tables::kCtStatus
               ? Variance::kConnectionState
               : Variance::kConnectionCounts;
  }
  const bool flags = load.source == Source::kTransport && load.offset == 13 && load.length == 1;
  return flags ? Variance::kTcpFlags : Variance::kHeaderField;
}

// Their conditions are left to the rules that are reached.
void Evaluation::IgnoreVaryingKeys(const tables::Classifier& index) {
  uint8_t bits[ElementSet::kMaxKey];
  for (size_t d = 0; d < index.dimension_count(); ++d) {
    if (VaryingBits(index.load(d), bits) != Known::kAll) cursor_.SetUnknown(d);
  }
}

}  // namespace sluice::stages
