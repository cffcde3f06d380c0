// Statements that end in something else than a match: nft_reject*.c, nft_nat.c, nft_masq.c,
// nft_redir.c, nft_log.c, nft_numgen.c, nft_hash.c.
#include <algorithm>

#include "stages/filter/evaluation.h"
#include "stages/filter/jhash.h"
#include "tables/ruleset/key_hash.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/protocol.h"

namespace sluice::stages {

using tables::NatKind;
using tables::NatOp;
using tables::NatRequest;
using tables::Op;

namespace {

enum RejectType : uint32_t { kUnreachable, kTcpReset, kIcmpx };

// NFT_REJECT_ICMPX_*: no route, port unreachable, host unreachable, admin prohibited.
constexpr uint8_t kIcmpxCodes4[] = {0, 3, 1, 13};
constexpr uint8_t kIcmpxCodes6[] = {0, 4, 3, 1};

uint32_t Scale(uint32_t value, uint32_t range) {  // reciprocal_scale
  return static_cast<uint32_t>(uint64_t{value} * range >> 32);
}

}  // namespace

Evaluation::Step Evaluation::Reject(const Op& op) {
  if (family_slot_ == 2) return Verdict(kDrop);
  if (op.a == kTcpReset) {
    if (!has_l4_ || later_fragment_ || context_.p.l4_protocol != wire::kProtocolTcp) {
      return Verdict(kDrop);
    }
    result_.reject = RejectKind::kTcpReset;
    result_.reject_code = 0;
  } else {
    result_.reject = is_v4() ? RejectKind::kIcmp : RejectKind::kIcmpv6;
    result_.reject_code = static_cast<uint8_t>(op.b);
    if (op.a == kIcmpx) result_.reject_code = (is_v4() ? kIcmpxCodes4 : kIcmpxCodes6)[op.b & 3];
  }
  result_.kind = FilterVerdict::Kind::kReject;
  return Verdict(kFinal);
}

// nft_nat_setup_netmap: the prefix of the range, the rest of the packet's address.
void Evaluation::Netmap(NatRequest& request) const {
  const bool source = request.kind == NatKind::kSource;
  Ipv6 mask{~(request.min_address.bits.hi ^ request.max_address.bits.hi),
            ~(request.min_address.bits.lo ^ request.max_address.bits.lo)};
  IpAddress address;
  if (is_v4()) {
    const wire::Ipv4View ip(context_.p.l3());
    address = source ? ip.source() : ip.destination();
  } else {
    const wire::Ipv6View ip(context_.p.l3());
    address = source ? ip.source() : ip.destination();
  }
  address.bits.hi = (address.bits.hi & ~mask.hi) | (request.min_address.bits.hi & mask.hi);
  address.bits.lo = (address.bits.lo & ~mask.lo) | (request.min_address.bits.lo & mask.lo);
  if (is_v4()) address.bits = Ipv6(0, address.bits.lo & 0xffff'ffff);
  request.min_address = address;
  request.max_address = address;
}

Evaluation::Step Evaluation::Nat(const Op& op) {
  const NatOp& nat = program_.nats[op.a];
  // nft_nat_inet_eval: a statement for the other family does nothing.
  if (nat.family != kProtoInet && nat.family != protocol_family_) return Step::kNext;
  NatRequest& request = result_.nat;
  request = {};
  request.kind = static_cast<NatKind>(nat.kind);
  request.flags = nat.flags;
  if (nat.address_min != tables::kNoUnit) {
    const uint8_t last = nat.address_max == tables::kNoUnit ? nat.address_min : nat.address_max;
    if (is_v4()) {
      request.min_address = Ipv4::FromWire(Reg(nat.address_min));
      request.max_address = Ipv4::FromWire(Reg(last));
    } else {
      request.min_address = Ipv6::FromWire(Reg(nat.address_min));
      request.max_address = Ipv6::FromWire(Reg(last));
    }
    request.flags |= tables::kNatMapAddresses;
    if ((nat.flags & tables::kNatNetmap) != 0) Netmap(request);
  }
  if (nat.port_min != tables::kNoUnit) {
    request.min_port = LoadBe16(Reg(nat.port_min));
    request.max_port =
        LoadBe16(Reg(nat.port_max == tables::kNoUnit ? nat.port_min : nat.port_max));
    request.flags |= tables::kNatPortsGiven;
  }
  result_.kind = FilterVerdict::Kind::kNat;
  return Verdict(kFinal);
}

void Evaluation::Log(const Op& op) {
  (void)op;  // the record names the rule; prefix and level are in its LogOp
  if (context_.dry_run) return;
  Filter& f = filter_;
  f.logged_.Add();
  // A bucket of one second's worth; see tables/ruleset/stateful.h for the arithmetic.
  const Nanos empty = std::max(f.log_bucket_, context_.now - Seconds(1));
  if (context_.now - empty < f.log_cost_) {
    f.log_lost_.Add();
    return;
  }
  const packet::Packet& p = context_.p;
  LogRecord record;
  record.generation = ruleset_.generation();
  record.rule = rule_;
  record.time = context_.now;
  record.hook = hook_;
  if (context_.in != nullptr) record.in = context_.in->slot;
  if (context_.out != nullptr) record.out = context_.out->slot;
  record.mark = mark_;
  record.l3_length = static_cast<uint16_t>(std::min<uint32_t>(p.l3_length(), 0xffff));
  record.captured =
      static_cast<uint16_t>(std::min<uint32_t>(p.l3_length(), LogRecord::kSnapLength));
  CopyOut(p.l3_offset, record.l3.data(), record.captured);
  if (f.log_.TryPush(std::move(record))) {
    f.log_bucket_ = empty + f.log_cost_;
  } else {
    f.log_lost_.Add();
  }
}

void Evaluation::Numgen(const Op& op) {
  uint32_t number;
  if (op.kind == 0) {
    tables::StateCell& cell = tables::WorkerCell(op.cell, worker_);
    number = static_cast<uint32_t>(cell.a.load(std::memory_order_relaxed));
    if (!context_.dry_run) {
      cell.a.store(number + 1 < op.a ? number + 1 : 0, std::memory_order_relaxed);
    }
  } else {
    number = Scale(static_cast<uint32_t>(filter_.rng_.Next() >> 32), op.a);
  }
  registers_[op.dreg] = number + op.b;
}

void Evaluation::Hash(const Op& op) {
  uint32_t hash;
  if (op.kind == 0) {
    hash = Jhash({Reg(op.sreg), op.length}, program_.seeds[op.set]);
  } else {
    // Symmetric in both directions; the kernel's is keyed by a random number, so any one will do.
    const packet::Packet& p = context_.p;
    uint64_t sum = p.l4_protocol;
    uint64_t twist = 0;
    if (is_v4()) {
      const wire::Ipv4View ip(p.l3());
      sum += uint64_t{ip.source().value} + ip.destination().value;
      twist = ip.source().value ^ ip.destination().value;
    } else if (is_v6()) {
      const wire::Ipv6View ip(p.l3());
      const Ipv6 s = ip.source();
      const Ipv6 d = ip.destination();
      sum += tables::MixHash(s.hi, s.lo) + tables::MixHash(d.hi, d.lo);
      twist = s.hi ^ d.hi ^ s.lo ^ d.lo;
    }
    uint32_t ports;
    if ((p.l4_protocol == wire::kProtocolTcp || p.l4_protocol == wire::kProtocolUdp ||
         p.l4_protocol == wire::kProtocolSctp) &&
        Load32({.source = tables::Source::kTransport, .length = 4}, ports)) {
      sum += (ports & 0xffff) + (ports >> 16);
      twist ^= uint64_t{(ports & 0xffff) ^ (ports >> 16)} << 32;
    }
    hash = static_cast<uint32_t>(tables::MixHash(sum ^ filter_.hash_seed_, twist));
  }
  registers_[op.dreg] = Scale(hash, op.a) + op.b;
}

}  // namespace sluice::stages
