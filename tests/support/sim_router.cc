#include "support/sim_router.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <utility>

namespace sluice::test {

using tables::Interface;
using tables::Path;
using tables::Route;
using tables::RouteId;
using tables::RouteType;
using tables::Snapshot;

namespace {

[[noreturn]] void Mistake(const std::string& what, const std::string& value) {
  std::fprintf(stderr, "SimRouter: %s: %s\n", what.c_str(), value.c_str());
  std::abort();
}

void Must(bool condition, const char* what, const std::string& value) {
  if (!condition) Mistake(what, value);
}

// What RSS does: the flow decides, ARP and the like go to the first queue.
size_t QueueOf(const Bytes& frame, size_t queues) {
  if (queues == 1 || frame.size() < 34) return 0;
  const uint16_t type = LoadBe16(frame.data() + 12);
  size_t from = 0;
  size_t to = 0;
  if (type == 0x0800) {
    from = 26;
    to = 34;
    const bool ports = (frame[23] == 6 || frame[23] == 17) && (frame[14] & 0xf) == 5 &&
                       (LoadBe16(frame.data() + 20) & 0x3fff) == 0;
    if (ports) to = 38;
  } else if (type == 0x86dd) {
    from = 22;
    to = frame.size() >= 54 && (frame[20] == 6 || frame[20] == 17) ? 58 : 54;
  }
  uint32_t hash = 0x811c9dc5;
  for (size_t i = from; i < std::min(to, frame.size()); ++i) hash = (hash ^ frame[i]) * 0x01000193;
  return (hash ^ hash >> 15) % queues;
}

class CallCommand final : public dataplane::Command {
 public:
  CallCommand(SimRouter::Worker& worker, std::function<void(SimRouter::Worker&)> code)
      : worker_(worker), code_(std::move(code)) {}
  void Run() override { code_(worker_); }

 private:
  SimRouter::Worker& worker_;
  const std::function<void(SimRouter::Worker&)> code_;
};

tables::FibLimits SmallFib() { return {.routes = 4096, .bytes = 16 << 20, .huge_pages = false}; }

}  // namespace

SimRouter::SimRouter(std::string name, const Options& options)
    : SimNode(std::move(name)),
      options_(options),
      routes_(epochs_, 4096),
      fib4_(epochs_, SmallFib()),
      fib6_(epochs_, SmallFib()),
      arena_(packet::FrameArena::Create(options.workers * options.frames, options.chunk_size)),
      published_(std::make_unique<const Snapshot>()),
      snapshot_(published_.get()) {
  for (uint32_t i = 0; i < options.workers; ++i) {
    mailboxes_.push_back(std::make_unique<dataplane::Mailbox>(options.workers));
    pools_.push_back(std::make_unique<packet::FramePool>(*arena_));
    for (uint32_t f = options.frames; f-- > 0;) pools_[i]->Free(i * options.frames + f);
  }
  const dataplane::PipelineConfig config{.tables = {fib4_, fib6_, routes_},
                                         .neighbor_limit = options.neighbor_limit,
                                         .seed = options.seed,
                                         .start = options.start,
                                         .firewall = {.flows = 4096,
                                                      .flows_per_source = options.flows_per_source,
                                                      .worker_count = options.workers,
                                                      .seed = options.seed,
                                                      .start = options.start}};
  for (uint8_t i = 0; i < options.workers; ++i) {
    workers_.push_back(std::make_unique<Worker>(
        WorkerId{i}, dataplane::Shared{snapshot_, epochs_, mailboxes_}, config, *pools_[i]));
    epochs_.Online(WorkerId{i});
  }
}

SimRouter::~SimRouter() {
  for (const auto& worker : workers_) epochs_.Offline(worker->id());
}

IfaceSlot SimRouter::SlotOf(const std::string& name) const {
  for (size_t slot = 0; slot < interfaces_.size(); ++slot) {
    if (config_.interfaces[slot].name == name) return config_.interfaces[slot].slot;
  }
  Mistake("no such interface", name);
}

template <class Fib>
void SimRouter::Install(Fib& fib, const typename Fib::Prefix& prefix, Route&& route) {
  const RouteId before = fib.Find(prefix);
  const auto id = routes_.Intern(std::move(route));
  Must(id.ok() && fib.Insert(prefix, *id).ok(), "the tables refuse", ToString(prefix));
  if (before.valid()) routes_.Release(before);
}

SimRouter& SimRouter::AddInterface(const std::string& name, MacArg mac,
                                   const std::vector<std::string>& addresses, uint32_t mtu,
                                   uint32_t queues) {
  const auto slot = static_cast<uint8_t>(interfaces_.size());
  Interface& i = config_.interfaces[slot];
  i.slot = IfaceSlot{slot};
  i.name = name;
  i.ifindex = IfIndex{slot + 2u};
  i.mac = mac.value;
  i.mtu = i.mtu6 = mtu;
  i.up = true;
  i.forwarding4 = i.forwarding6 = true;
  const auto path = [&] {
    Route route;
    route.paths.push_back({.oif = i.ifindex, .slot = i.slot});
    return route;
  };
  const auto typed = [&](RouteType type) {
    Route route = path();
    route.type = type;
    return route;
  };
  for (const std::string& text : addresses) {
    const std::string bare = text.substr(0, text.find('/'));
    if (const auto p4 = ParseIpv4Prefix(text)) {
      const Ipv4 own = *ParseIpv4(bare);
      i.addresses4.push_back({.address = own, .prefix_length = p4->length});
      const Ipv4Prefix subnet = Ipv4Prefix{own, p4->length}.Canonical();
      Install(fib4_, subnet, path());
      Install(fib4_, {own, 32}, typed(RouteType::kLocal));
      if (p4->length < 31) {
        Install(fib4_, {Ipv4(own.value | ~subnet.mask()), 32}, typed(RouteType::kBroadcast));
      }
    } else {
      const auto p6 = ParseIpv6Prefix(text);
      Must(p6.has_value(), "not an address with its prefix length", text);
      const Ipv6 own = *ParseIpv6(bare);
      i.addresses6.push_back({.address = own, .prefix_length = p6->length});
      Install(fib6_, Ipv6Prefix{own, p6->length}.Canonical(), path());
      Install(fib6_, {own, 128}, typed(RouteType::kLocal));
    }
  }
  i.addresses6.push_back(
      {.address = Ipv6(0xfe80'0000'0000'0000ull, 0x100u + slot), .prefix_length = 64});

  Wire& wire = interfaces_.emplace_back();
  if (queues == 0) queues = options_.workers;
  for (uint32_t q = 0; q < queues; ++q) {
    wire.ports.push_back(std::make_unique<io::SimPort>(i.slot, options_.port));
    workers_[q % workers_.size()]->AddPort(wire.ports.back().get());
  }
  for (const auto& worker : workers_) {
    const size_t queue = worker->id().value % queues;
    worker->SetOutputOwner(i.slot, WorkerId{static_cast<uint8_t>(queue % workers_.size())});
    worker->SetPuntDevice(i.slot, wire.punt.get());
  }
  return *this;
}

IfaceSlot SimRouter::FindConnected(const IpAddress& address) const {
  for (const Interface& i : config_.interfaces) {
    for (const auto& own : i.addresses4) {
      const Ipv4Prefix subnet{own.address, own.prefix_length};
      if (address.is_v4() && subnet.Contains(address.v4())) return i.slot;
    }
    for (const auto& own : i.addresses6) {
      const Ipv6Prefix subnet{own.address, own.prefix_length};
      if (!address.is_v4() && subnet.Contains(address.v6())) return i.slot;
    }
  }
  return IfaceSlot::None();
}

Path SimRouter::MakePath(const PathSpec& spec) const {
  Path path;
  path.weight = spec.weight;
  if (!spec.via.empty()) {
    const auto via = ParseIpAddress(spec.via);
    Must(via.has_value(), "not an address", spec.via);
    path.has_gateway = true;
    path.gateway = *via;
    path.slot = FindConnected(*via);
  }
  if (!spec.interface.empty()) path.slot = SlotOf(spec.interface);
  Must(path.slot.valid(), "no interface leads to", spec.via);
  path.oif = config_.at(path.slot).ifindex;
  return path;
}

void SimRouter::Install(const std::string& prefix, Route&& route) {
  if (const auto p4 = ParseIpv4Prefix(prefix)) return Install(fib4_, *p4, std::move(route));
  const auto p6 = ParseIpv6Prefix(prefix);
  Must(p6.has_value(), "not a prefix", prefix);
  Install(fib6_, *p6, std::move(route));
}

SimRouter& SimRouter::AddRoute(const std::string& prefix, const std::string& via,
                               const std::string& interface, uint32_t mtu) {
  Route route;
  route.mtu = mtu;
  route.paths.push_back(MakePath({.via = via, .interface = interface}));
  Install(prefix, std::move(route));
  return *this;
}

SimRouter& SimRouter::AddMultipath(const std::string& prefix, const std::vector<PathSpec>& paths) {
  Route route;
  for (const PathSpec& spec : paths) route.paths.push_back(MakePath(spec));
  Install(prefix, std::move(route));
  return *this;
}

SimRouter& SimRouter::AddRoute(const std::string& prefix, RouteType type) {
  Route route;
  route.type = type;
  Install(prefix, std::move(route));
  return *this;
}

SimRouter& SimRouter::RemoveRoute(const std::string& prefix) {
  RouteId id;
  if (const auto p4 = ParseIpv4Prefix(prefix)) {
    id = fib4_.Find(*p4);
    fib4_.Erase(*p4);
  } else {
    const auto p6 = ParseIpv6Prefix(prefix);
    Must(p6.has_value(), "not a prefix", prefix);
    id = fib6_.Find(*p6);
    fib6_.Erase(*p6);
  }
  if (id.valid()) routes_.Release(id);
  return *this;
}

SimRouter& SimRouter::Publish() {
  ++config_.generation;
  std::vector<Ipv4> own;
  for (const Interface& i : config_.interfaces) {
    for (const auto& a : i.addresses4) own.push_back(a.address);
  }
  config_.own4.Assign(std::move(own));
  auto next = std::make_unique<const Snapshot>(config_);
  snapshot_.store(next.get(), std::memory_order_release);
  epochs_.RetireObject(std::exchange(published_, std::move(next)));
  return *this;
}

SimRouter& SimRouter::SetUp(const std::string& name, bool up) {
  interface(name).up = up;
  return Publish();
}

SimRouter& SimRouter::AddSockets(transport::TransportConfig config) {
  config.start = options_.start;
  for (size_t i = 0; i < workers_.size(); ++i) {
    dataplane::LocalSockets& sockets = workers_[i]->pipeline().sockets();
    config.key = {options_.seed + i, options_.seed * 31 + i};
    sockets.Install(std::make_unique<transport::Transport>(config, *pools_[i], sockets), nullptr);
  }
  return *this;
}

void SimRouter::Deliver(size_t port, Bytes frame) {
  auto& ports = interfaces_[port].ports;
  ports[QueueOf(frame, ports.size())]->Deliver(std::move(frame));
}

void SimRouter::CollectOutput() {
  for (size_t slot = 0; slot < interfaces_.size(); ++slot) {
    for (const auto& port : interfaces_[slot].ports) {
      for (Bytes& frame : port->TakeSent()) {
        ++interfaces_[slot].sent;
        Send(slot, std::move(frame));
      }
    }
    for (Bytes& frame : interfaces_[slot].punt->TakeWritten()) punted.push_back(std::move(frame));
  }
}

void SimRouter::Step(Nanos now) {
  const auto busy = [&] {
    for (const auto& mailbox : mailboxes_) {
      if (!mailbox->IsEmpty()) return true;
    }
    for (const Wire& wire : interfaces_) {
      for (const auto& port : wire.ports) {
        if (!port->idle()) return true;
      }
    }
    return NextDeadline() <= now;
  };
  constexpr int kMostTurns = 100'000;
  int turns = 0;
  size_t work = 0;
  do {
    work = 0;
    for (const auto& worker : workers_) work += worker->Tick(now);
    CollectOutput();
    if (++turns > kMostTurns) Mistake("does not come to rest", name());
  } while (work > 0 || busy());
  commands_.clear();
  epochs_.Reclaim();
}

Nanos SimRouter::NextDeadline() const {
  Nanos next = Nanos::Max();
  for (const auto& worker : workers_) next = std::min(next, worker->NextDeadline());
  return next;
}

void SimRouter::OnWorkers(const std::function<void(Worker&)>& code) {
  for (const auto& worker : workers_) {
    commands_.push_back(std::make_unique<CallCommand>(*worker, code));
    Must(worker->mailbox().Post(commands_.back().get()), "too many commands", name());
  }
}

}  // namespace sluice::test
