#include "control/ruleset/stateful.h"

#include <limits>

namespace sluice::control {

using tables::StatefulExpr;
using tables::StatefulKind;

namespace {

constexpr uint64_t kNanosPerSecond = 1'000'000'000;
constexpr uint32_t kDefaultPacketBurst = 5;  // NFT_LIMIT_PKT_BURST_DEFAULT

// nft_limit_init. Buckets of more than 2^62 ns (146 years) are cut there; the kernel refuses those
// of 2^64.
StatefulExpr ToLimit(const nft::LimitExpr& e) {
  constexpr auto kMax = static_cast<unsigned __int128>(std::numeric_limits<int64_t>::max() / 2);
  StatefulExpr s;
  s.kind = StatefulKind::kLimit;
  s.inverted = e.inverted;
  s.bytes = e.bytes;
  s.rate = e.rate == 0 ? 1 : e.rate;
  const unsigned __int128 unit = static_cast<unsigned __int128>(e.unit_seconds) * kNanosPerSecond;
  s.unit_ns = static_cast<uint64_t>(unit > kMax ? kMax : unit);
  unsigned __int128 tokens;
  if (e.bytes) {
    tokens = static_cast<unsigned __int128>(s.unit_ns) * (s.rate + e.burst) / s.rate;
  } else {
    s.packet_cost = s.unit_ns / s.rate;
    const uint32_t burst = e.burst == 0 ? kDefaultPacketBurst : e.burst;
    tokens = static_cast<unsigned __int128>(s.packet_cost) * burst;
  }
  s.tokens_max = static_cast<uint64_t>(tokens > kMax ? kMax : tokens);
  return s;
}

}  // namespace

std::optional<StatefulExpr> ToStateful(const nft::Expr& expr) {
  StatefulExpr s;
  if (std::holds_alternative<nft::CounterExpr>(expr)) {
    s.kind = StatefulKind::kCounter;
  } else if (const auto* limit = std::get_if<nft::LimitExpr>(&expr)) {
    s = ToLimit(*limit);
  } else if (const auto* quota = std::get_if<nft::QuotaExpr>(&expr)) {
    s.kind = StatefulKind::kQuota;
    s.quota = quota->bytes;
    s.inverted = quota->inverted;
  } else if (const auto* connections = std::get_if<nft::ConnlimitExpr>(&expr)) {
    s.kind = StatefulKind::kConnections;
    s.quota = connections->count;
    s.inverted = connections->inverted;
  } else if (std::holds_alternative<nft::LastExpr>(expr)) {
    s.kind = StatefulKind::kLast;
  } else {
    return {};
  }
  return s;
}

void InitState(const nft::Expr& expr, const StatefulExpr& stateful, tables::StateCell& cell,
               Nanos now) {
  if (stateful.kind == StatefulKind::kLimit) FillBucket(stateful, cell, now);
  if (const auto* quota = std::get_if<nft::QuotaExpr>(&expr)) {
    cell.a.store(quota->consumed, std::memory_order_relaxed);
  }
}

}  // namespace sluice::control
