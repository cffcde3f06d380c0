#include "services/backend_pool.h"

#include <algorithm>

#include "tables/maglev.h"

namespace sluice::services {

namespace {

// So often another place of the table is tried before backends are looked at one by one.
constexpr int kRehashes = 16;

}  // namespace

void BackendPool::Configure(const tables::ServiceConfig& config, Nanos now) {
  config_ = &config;
  for (Backend* b : current_) b->removed = true;
  current_.clear();
  for (const tables::BackendConfig& wanted : config.backends) {
    auto found = std::find_if(all_.begin(), all_.end(), [&](const auto& b) {
      return b->config.address == wanted.address;
    });
    if (found == all_.end()) {
      found = all_.insert(found, std::make_unique<Backend>());
      (*found)->since = now;
    }
    Backend& b = **found;
    b.config = wanted;
    BackendStats& stats = counters_.backend(wanted.slot);
    if (b.stats != &stats) stats.active.Add(b.connections);  // it comes back to another place
    b.stats = &stats;
    b.index = static_cast<uint32_t>(current_.size());
    b.removed = false;
    b.stats->up.Set(b.up ? 1 : 0);
    current_.push_back(&b);
  }
  for (const auto& b : all_) {
    if (b->removed) b->stats->up.Set(0);
    b->credit = 0;
  }
  // Workers begin at different backends.
  next_ = current_.empty() ? 0 : static_cast<uint32_t>(seed_ % current_.size());
}

void BackendPool::GiveUpSlot(uint32_t slot) {
  for (const auto& b : all_) {
    if (b->config.slot != slot) continue;
    b->config.slot = tables::kNoServiceSlot;
    b->stats = &counters_.backend(tables::kNoServiceSlot);
  }
}

void BackendPool::Collect() {
  std::erase_if(all_, [](const auto& b) { return b->removed && b->connections == 0; });
}

Backend* BackendPool::Pick(const IpAddress& client, BackendMask tried) {
  switch (config_->balance) {
    case tables::Balance::kRoundRobin:
      return PickInTurns(tried);
    case tables::Balance::kLeastConnections:
      return PickLeastConnections(tried);
    case tables::Balance::kMaglev:
      return PickByClient(client, tried);
  }
  return nullptr;
}

// Each earns its weight, and the one with the most pays for all.
Backend* BackendPool::PickInTurns(BackendMask tried) {
  Backend* best = nullptr;
  int64_t total = 0;
  const size_t n = current_.size();
  for (size_t i = 0; i < n; ++i) {
    Backend& b = *current_[(i + next_) % n];
    if (!Eligible(b, tried)) continue;
    b.credit += b.config.weight;
    total += b.config.weight;
    if (best == nullptr || b.credit > best->credit) best = &b;
  }
  if (best != nullptr) best->credit -= total;
  return best;
}

Backend* BackendPool::PickLeastConnections(BackendMask tried) {
  Backend* best = nullptr;
  const size_t n = current_.size();
  // With the new connection it would have so many for each unit of weight.
  const auto less = [](const Backend& a, const Backend& b) {
    return uint64_t{a.connections + 1} * b.config.weight <
           uint64_t{b.connections + 1} * a.config.weight;
  };
  for (size_t i = 0; i < n; ++i) {
    Backend& b = *current_[(i + next_) % n];
    if (Eligible(b, tried) && (best == nullptr || less(b, *best))) best = &b;
  }
  if (n > 0) next_ = static_cast<uint32_t>((next_ + 1) % n);
  return best;
}

Backend* BackendPool::PickByClient(const IpAddress& client, BackendMask tried) {
  if (current_.empty() || config_->maglev.empty()) return PickInTurns(tried);
  uint64_t hash = tables::MixBits(tables::MixBits(client.bits.hi) ^ client.bits.lo);
  for (int i = 0; i < kRehashes; ++i) {
    Backend& b = *current_[config_->maglev[tables::MaglevPlace(hash)]];
    if (Eligible(b, tried)) return &b;
    hash = tables::MixBits(hash);
  }
  const size_t n = current_.size();
  for (size_t i = 0; i < n; ++i) {
    Backend& b = *current_[(i + hash) % n];
    if (Eligible(b, tried)) return &b;
  }
  return nullptr;
}

}  // namespace sluice::services
