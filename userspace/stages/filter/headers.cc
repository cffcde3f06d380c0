// Extension headers and options (nft_exthdr.c), and what rules change in a packet (nft_payload.c,
// nft_meta.c, nft_ct.c).
#include <algorithm>
#include <optional>

#include "stages/filter/evaluation.h"
#include "wire/checksum.h"
#include "wire/ipv4_options.h"
#include "wire/protocol.h"
#include "wire/tcp.h"

namespace sluice::stages {

using tables::Op;
using tables::Source;

namespace {

enum ExthdrOp : uint8_t { kIpv6Header, kTcpOption, kIpv4Option, kSctpChunk };

constexpr uint8_t kProtocolUdpLite = 136;
constexpr uint8_t kCsumInet = 1;

bool IsIpv6Extension(uint8_t header) {  // ipv6_ext_hdr
  return header == wire::kProtocolHopByHop || header == wire::kProtocolRouting ||
         header == wire::kProtocolFragment || header == wire::kProtocolAuthentication ||
         header == wire::kProtocolNoNextHeader || header == wire::kProtocolDestinationOptions;
}

// Walks TCP options; a length of zero counts as one, so that it ends.
uint32_t OptionLength(const uint8_t* options, uint32_t at) {
  return options[at] <= wire::kTcpOptionNop || options[at + 1] == 0 ? 1 : options[at + 1];
}

// The kernel's nft_csum_replace.
uint16_t ReplaceSum(uint16_t check, uint32_t old_sum, uint32_t new_sum) {
  const uint16_t next = wire::Checksum(uint64_t{static_cast<uint16_t>(~check)} +
                                       static_cast<uint16_t>(~wire::Fold(old_sum)) + new_sum);
  return next == 0 ? 0xffff : next;
}

}  // namespace

// ipv6_find_hdr with a target.
bool Evaluation::FindIpv6Header(uint8_t type, uint32_t& at) const {
  const packet::Packet& p = context_.p;
  at = p.l3_offset + 40u;
  uint8_t header = p.l3()[6];
  for (;;) {
    const bool found = header == type;
    if (!IsIpv6Extension(header) || header == wire::kProtocolNoNextHeader) return found;
    uint8_t bytes[8];
    if (at + 8 > p.length) return false;
    CopyOut(at, bytes, 8);
    uint32_t length = (bytes[1] + 1u) * 8;
    if (header == wire::kProtocolFragment) {
      if ((LoadBe16(bytes + 2) & 0xfff8) != 0) return found;
      length = 8;
    } else if (header == wire::kProtocolAuthentication) {
      length = (bytes[1] + 2u) * 4;
    }
    if (found) return true;
    header = bytes[0];
    at += length;
  }
}

// ipv4_find_option: source routes, record route and router alert of options that are valid.
bool Evaluation::FindIpv4Option(uint8_t type, uint32_t& at) const {
  const packet::Packet& p = context_.p;
  const wire::Ipv4View ip(p.l3());
  if (!ip.has_options() || !wire::CompileIpv4Options(ip).valid) return false;
  if (type != wire::kIpv4OptionLooseSourceRoute && type != wire::kIpv4OptionStrictSourceRoute &&
      type != wire::kIpv4OptionRecordRoute && type != wire::kIpv4OptionRouterAlert) {
    return false;
  }
  wire::Ipv4OptionIterator options(ip.options());
  while (const auto option = options.Next()) {
    if (option->kind != type) continue;
    if (type == wire::kIpv4OptionRouterAlert &&
        (option->bytes.size() < 4 || option->bytes[2] != 0 || option->bytes[3] != 0)) {
      continue;
    }
    at = p.l3_offset + static_cast<uint32_t>(wire::Ipv4View::kMinSize) + option->offset;
    return true;
  }
  return false;
}

bool Evaluation::FindSctpChunk(uint8_t type, uint32_t& at, uint32_t& length) const {
  const packet::Packet& p = context_.p;
  if (!has_l4_ || later_fragment_ || p.l4_protocol != wire::kProtocolSctp) return false;
  for (at = p.l4_offset + 12u; at + 4 <= p.length;) {
    uint8_t chunk[4];
    CopyOut(at, chunk, 4);
    length = LoadBe16(chunk + 2);
    if (chunk[0] == type) return true;
    if (length == 0) return false;
    at += (length + 3) / 4 * 4;
  }
  return false;
}

uint32_t Evaluation::TcpHeader(std::array<uint8_t, 60>& buffer) const {
  const packet::Packet& p = context_.p;
  if (!has_l4_ || later_fragment_ || p.l4_protocol != wire::kProtocolTcp) return 0;
  if (p.l4_offset + 20u > p.length) return 0;
  CopyOut(p.l4_offset, buffer.data(), 20);
  const uint32_t length = (buffer[12] >> 4) * 4u;
  if (length < 20 || p.l4_offset + length > p.length) return 0;
  CopyOut(p.l4_offset, buffer.data(), length);
  return length;
}

Evaluation::Step Evaluation::Exthdr(const Op& op) {
  const bool presence = op.flags != 0;
  bool found = false;
  uint32_t at = 0;             // of the header, in the packet
  uint32_t room = 0xffffffff;  // how much of it may be read
  switch (op.kind) {
    case kIpv6Header:
      if (!is_v6()) return Step::kBreak;
      found = FindIpv6Header(op.kind2, at);
      break;
    case kIpv4Option:
      if (!is_v4()) return Step::kBreak;
      found = FindIpv4Option(op.kind2, at);
      break;
    case kSctpChunk:
      found = FindSctpChunk(op.kind2, at, room);
      break;
    case kTcpOption: {
      std::array<uint8_t, 60> tcp;
      const uint32_t length = TcpHeader(tcp);
      for (uint32_t i = 20; i + 1 < length; i += OptionLength(tcp.data(), i)) {
        if (tcp[i] != op.kind2) continue;
        const uint32_t size = OptionLength(tcp.data(), i);
        found = i + size <= length && op.load.offset + op.length <= size;
        at = context_.p.l4_offset + i;
        break;
      }
      break;
    }
    default:
      return Verdict(kToKernel);
  }
  if (presence) {
    registers_[op.dreg] = found ? 1 : 0;
    return Step::kNext;
  }
  if (!found || op.load.offset + op.length > room) return Step::kBreak;
  at += op.load.offset;
  if (at + op.length > context_.p.length) return Step::kBreak;
  if (op.length % 4 != 0) std::memset(Reg(op.dreg) + op.length / 4 * 4, 0, 4);
  CopyOut(at, Reg(op.dreg), op.length);
  return Step::kNext;
}

// Packets of a flow have neither options nor extension headers; what they have of TCP options, varies.
void Evaluation::ObserveExthdr(const Op& op) {
  if (op.kind == kTcpOption && context_.p.l4_protocol == wire::kProtocolTcp) {
    return Vary(Variance::kTcpOptions);
  }
  // "The header" of TCP or UDP itself.
  if (op.kind == kIpv6Header && is_v6() && op.kind2 == context_.p.l4_protocol && op.flags == 0) {
    return Vary(Variance::kHeaderField);
  }
  SetFixed(op.dreg, std::max<size_t>(op.length, 4));
}

// nft_exthdr_tcp_set_eval: the maximum segment size is only ever lowered.
Evaluation::Step Evaluation::ExthdrSet(const Op& op) {
  std::array<uint8_t, 60> tcp;
  const uint32_t length = TcpHeader(tcp);
  if (length == 0) return Step::kBreak;
  for (uint32_t i = 20; i + 1 < length; i += OptionLength(tcp.data(), i)) {
    if (tcp[i] != op.kind2) continue;
    const uint32_t size = OptionLength(tcp.data(), i);
    if (i + size > length || op.load.offset + op.length > size) return Step::kBreak;
    const uint8_t* old = tcp.data() + i + op.load.offset;
    const uint8_t* fresh = Reg(op.sreg);
    if (std::memcmp(old, fresh, op.length) == 0) return Step::kNext;
    if (op.kind2 == wire::kTcpOptionMss && op.length == 2 && LoadBe16(old) <= LoadBe16(fresh)) {
      return Step::kNext;
    }
    if (context_.dry_run) return Step::kNext;
    const uint32_t at = context_.p.l4_offset + i + op.load.offset;
    if (!context_.p.Has(packet::kFlagPartialChecksum)) {
      // At an odd offset the bytes lie in the other halves of the words.
      const bool odd = ((i + op.load.offset) & 1) != 0;
      uint32_t old_sum = wire::Sum({old, op.length});
      uint32_t new_sum = wire::Sum({fresh, op.length});
      if (odd) {
        old_sum = __builtin_bswap16(wire::Fold(old_sum));
        new_sum = __builtin_bswap16(wire::Fold(new_sum));
      }
      uint8_t check[2];
      StoreBe16(check, ReplaceSum(LoadBe16(tcp.data() + 16), old_sum, new_sum));
      CopyIn(context_.p.l4_offset + 16u, check, 2);
    }
    CopyIn(at, fresh, op.length);
    ++modifications_;
    return Step::kNext;
  }
  return Step::kNext;
}

// nft_exthdr_tcp_strip_eval: the first option of the kind.
Evaluation::Step Evaluation::ExthdrStrip(const Op& op) {
  std::array<uint8_t, 60> tcp;
  const uint32_t length = TcpHeader(tcp);
  if (length == 0) return Step::kBreak;
  for (uint32_t i = 20; i + 1 < length; i += OptionLength(tcp.data(), i)) {
    if (tcp[i] != op.kind2) continue;
    const uint32_t size = OptionLength(tcp.data(), i);
    if (i + size > length) return Verdict(kDrop);
    if (context_.dry_run) return Step::kNext;
    const uint32_t old_sum = wire::Sum({tcp.data() + 20, length - 20});
    std::memset(tcp.data() + i, wire::kTcpOptionNop, size);
    if (!context_.p.Has(packet::kFlagPartialChecksum)) {
      const uint32_t new_sum = wire::Sum({tcp.data() + 20, length - 20});
      const uint16_t check = LoadBe16(tcp.data() + 16);
      StoreBe16(tcp.data() + 16,
                wire::Checksum(uint64_t{static_cast<uint16_t>(~check)} +
                               static_cast<uint16_t>(~wire::Fold(old_sum)) + new_sum));
    }
    CopyIn(context_.p.l4_offset, tcp.data(), length);
    ++modifications_;
    break;
  }
  return Step::kNext;
}

void Evaluation::UpdateL4Checksum(uint32_t old_sum, uint32_t new_sum) {
  const packet::Packet& p = context_.p;
  if (!has_l4_ || later_fragment_) return;
  uint32_t offset;
  switch (p.l4_protocol) {
    case wire::kProtocolTcp:
      offset = 16;
      break;
    case wire::kProtocolUdp:
    case kProtocolUdpLite:
      offset = 6;
      break;
    case wire::kProtocolIcmpv6:
      offset = 2;
      break;
    default:
      return;
  }
  const uint32_t at = p.l4_offset + offset;
  if (at + 2 > p.length) return;
  uint8_t bytes[2];
  CopyOut(at, bytes, 2);
  const uint16_t check = LoadBe16(bytes);
  if (p.l4_protocol == wire::kProtocolUdp && check == 0) return;  // there is none
  if (p.Has(packet::kFlagPartialChecksum)) {  // the sum of the pseudo header, as it is
    StoreBe16(bytes, wire::Fold(uint64_t{check} +
                                static_cast<uint16_t>(~wire::Fold(old_sum)) + new_sum));
  } else {
    StoreBe16(bytes, ReplaceSum(check, old_sum, new_sum));
  }
  CopyIn(at, bytes, 2);
}

Evaluation::Step Evaluation::PayloadSet(const Op& op) {
  uint32_t at;
  if (!Locate(op.load.source, op.load.offset, op.length, at)) return Step::kBreak;
  const uint8_t* fresh = Reg(op.sreg);
  packet::Packet& p = context_.p;
  const bool own_checksum =
      op.load.source == Source::kTransport || op.load.source == Source::kInner;
  if ((op.kind2 == kCsumInet || op.b != 0) &&
      !(own_checksum && p.Has(packet::kFlagPartialChecksum))) {
    uint32_t check_at = at - op.load.offset + op.a;
    if (op.kind2 == kCsumInet && check_at + 2 > p.length) return Step::kBreak;
    if (context_.dry_run) return Step::kNext;
    std::array<uint8_t, 64> old;
    CopyOut(at, old.data(), op.length);
    const uint32_t old_sum = wire::Sum({old.data(), op.length});
    const uint32_t new_sum = wire::Sum({fresh, op.length});
    if (op.kind2 == kCsumInet) {
      uint8_t bytes[2];
      CopyOut(check_at, bytes, 2);
      StoreBe16(bytes, ReplaceSum(LoadBe16(bytes), old_sum, new_sum));
      CopyIn(check_at, bytes, 2);
    }
    if (op.b != 0) UpdateL4Checksum(old_sum, new_sum);
  }
  if (context_.dry_run) return Step::kNext;
  CopyIn(at, fresh, op.length);
  // What was parsed from there.
  if (is_v4() && op.load.source == Source::kNetwork) p.l4_protocol = p.l3()[9];
  ++modifications_;
  return Step::kNext;
}

void Evaluation::MetaSet(const Op& op) {
  const uint32_t value = registers_[op.sreg];
  if (op.kind == tables::kMetaPriority) {
    // Nothing that Sluice sends by heeds it; later rules of this hook see it.
    priority_ = value;
    return;
  }
  if (mark_ == value) return;
  mark_ = value;
  ++modifications_;
  context_.p.mark = value;
}

void Evaluation::CtSet(const Op& op) {
  if (context_.flow == nullptr) return;
  const uint32_t value = registers_[op.sreg];
  if (ct_mark_ == value) return;
  ct_mark_ = value;
  ++modifications_;
  context_.flow->mark = value;
}

}  // namespace sluice::stages
