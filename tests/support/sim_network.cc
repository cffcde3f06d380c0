#include "support/sim_network.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace sluice::test {
namespace {

constexpr size_t kEthernetHeader = 14;

bool Happens(Rng& rng, double probability) {
  constexpr uint64_t kScale = 1'000'000'000;
  if (probability <= 0) return false;
  return rng.Chance(static_cast<uint64_t>(probability * static_cast<double>(kScale)), kScale);
}

}  // namespace

SimRouter& SimNetwork::AddRouter(std::string name, SimRouter::Options options) {
  options.start = now_;
  options.seed += seed_;
  auto router = std::make_unique<SimRouter>(std::move(name), options);
  SimRouter& result = *router;
  nodes_.push_back(std::move(router));
  return result;
}

SimHost& SimNetwork::AddHost(std::string name, MacArg mac,
                             const std::vector<std::string>& addresses,
                             const std::vector<std::string>& gateways) {
  auto host = std::make_unique<SimHost>(std::move(name), mac, addresses, gateways);
  SimHost& result = *host;
  nodes_.push_back(std::move(host));
  return result;
}

SimNode& SimNetwork::Add(std::unique_ptr<SimNode> node) {
  nodes_.push_back(std::move(node));
  return *nodes_.back();
}

SimLink& SimNetwork::Connect(SimNode& a, size_t port_a, SimNode& b, size_t port_b,
                             SimLinkOptions options) {
  links_.push_back(
      std::make_unique<SimLink>(SimLink::End{&a, port_a}, SimLink::End{&b, port_b}, options));
  SimLink& link = *links_.back();
  // One function per node finds the link by its end.
  for (SimNode* const node : {&a, &b}) {
    node->set_transmit([this, node](size_t port, Bytes frame) {
      for (const auto& l : links_) {
        for (const int side : {0, 1}) {
          if (l->ends_[side].node == node && l->ends_[side].port == port) {
            return Transmit(*l, side, std::move(frame));
          }
        }
      }
    });
  }
  return link;
}

void SimNetwork::Schedule(Nanos at, std::function<void()> action) {
  events_.emplace(Key{at, sequence_++}, std::move(action));
}

void SimNetwork::After(Nanos delay, std::function<void()> action) {
  Schedule(now_ + delay, [this, act = std::move(action)] {
    step_all_ = true;
    act();
  });
}

void SimNetwork::Transmit(SimLink& link, int direction, Bytes frame) {
  const SimLinkOptions& o = link.options;
  SimLinkStats& stats = link.stats_[direction];
  ++stats.offered;
  const bool too_big = frame.size() > o.mtu + kEthernetHeader;
  if (o.down || too_big || (link.lose_if && link.lose_if(frame)) || Happens(rng_, o.loss)) {
    ++stats.lost;
    return;
  }
  const int copies = Happens(rng_, o.duplicate) ? 2 : 1;
  stats.duplicated += static_cast<uint64_t>(copies - 1);
  for (int i = 0; i < copies; ++i) {
    Bytes copy = frame;
    if (Happens(rng_, o.corrupt)) {
      ++stats.corrupted;
      copy[rng_.Below(copy.size())] ^= static_cast<uint8_t>(1u << rng_.Below(8));
    }
    Nanos at = now_ + o.latency;
    if (o.jitter > Nanos()) {
      at += Nanos(static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(o.jitter.count()) + 1)));
    }
    if (Happens(rng_, o.reorder)) {
      ++stats.reordered;
      at += o.reorder_delay;
    } else {
      at = link.last_arrival_[direction] = std::max(at, link.last_arrival_[direction]);
    }
    ++in_flight_;
    Schedule(at, [this, &link, direction, bytes = std::move(copy)]() mutable {
      Arrive(link, direction, std::move(bytes));
    });
  }
}

void SimNetwork::Arrive(SimLink& link, int direction, Bytes frame) {
  --in_flight_;
  ++link.stats_[direction].delivered;
  const SimLink::End& to = link.ends_[1 - direction];
  const auto add = [this](uint64_t value) { digest_ = (digest_ ^ value) * 0x100000001b3ull; };
  add(static_cast<uint64_t>(now_.count()));
  for (const char c : to.node->name()) add(static_cast<uint8_t>(c));
  add(to.port);
  for (const uint8_t byte : frame) add(byte);
  touched_.insert(to.node);
  to.node->Deliver(to.port, std::move(frame));
}

void SimNetwork::StepNodes() {
  const bool all = std::exchange(step_all_, false);
  const auto touched = std::exchange(touched_, {});
  for (const auto& node : nodes_) {
    if (!all && node->NextDeadline() > now_ && touched.count(node.get()) == 0) continue;
    node->Step(now_);
    if (!violation_.empty()) return;
    const std::string problem = node->CheckInvariants();
    if (problem.empty()) continue;
    char where[96];
    std::snprintf(where, sizeof where,
                  "seed %llu, after %.6f s: ", static_cast<unsigned long long>(seed_),
                  now_.seconds() - 1000);
    violation_ = where + node->name() + ": " + problem;
    return;
  }
}

void SimNetwork::Run(Nanos duration) {
  const Nanos end = now_ + duration;
  step_all_ = true;
  StepNodes();
  while (violation_.empty()) {
    Nanos next = events_.empty() ? Nanos::Max() : events_.begin()->first.first;
    for (const auto& node : nodes_) next = std::min(next, node->NextDeadline());
    if (next > end) break;
    now_ = std::max(now_, next);
    while (!events_.empty() && events_.begin()->first.first <= now_) {
      const auto action = std::move(events_.begin()->second);
      events_.erase(events_.begin());
      action();
    }
    StepNodes();
  }
  now_ = end;
}

}  // namespace sluice::test
