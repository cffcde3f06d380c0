#include "stages/neighbor/neighbor_machine.h"

#include <algorithm>
#include <limits>

#include "stages/neighbor/link_header.h"
#include "stages/neighbor/packet_queue.h"
#include "stages/neighbor/solicit.h"

namespace sluice::stages {
namespace {

// Timers longer than a turn of the wheel are visited once per turn; this covers the usual ones.
constexpr size_t kWheelSlots = 8192;

// The kernel lets nothing run again sooner (HZ / 100).
constexpr Nanos kShortest = Millis(10);

// Probes are counted in 16 bits.
tables::NeighborSettings Bounded(tables::NeighborSettings s) {
  s.ucast_solicit = std::min(s.ucast_solicit, 10'000u);
  s.mcast_solicit = std::min(s.mcast_solicit, 10'000u);
  return s;
}

bool IsGroup(const IpAddress& ip) {
  return ip.is_v4() ? ip.v4().IsMulticast() || ip.v4().IsLimitedBroadcast() : ip.v6().IsMulticast();
}

}  // namespace

NeighborMachine::NeighborMachine(const packet::FrameArena& arena, uint32_t limit, uint64_t seed,
                                 Nanos start)
    : arena_(arena),
      table_(limit, seed),
      timers_(table_.places(), kTick, kWheelSlots, start),
      rng_(seed ^ 0x6e65'6967'6862'6f72ull) {
  lost_.fill(packet::kNoFrame);
}

void NeighborMachine::UseSnapshot(const tables::Snapshot& snapshot) {
  if (snapshot.generation == generation_) return;
  generation_ = snapshot.generation;
  for (size_t i = 0; i < kMaxInterfaces; ++i) {
    const tables::Interface& interface = snapshot.interfaces[i];
    Device& device = devices_[i];
    const bool up = interface.slot.valid() && interface.up;
    const bool same = device.ifindex == interface.ifindex && device.mac == interface.mac;
    if (device.up && (!up || !same)) InterfaceDown(IfaceSlot{static_cast<uint8_t>(i)});
    device.up = up;
    device.ifindex = interface.ifindex;
    device.mac = interface.mac;
    device.by_family[0].settings = Bounded(interface.neighbor4);
    device.by_family[1].settings = Bounded(interface.neighbor6);
  }
}

Nanos NeighborMachine::ReachableTime(IfaceSlot slot, Family family, Nanos now) {
  Parameters& p = parameters(slot, family);
  const Nanos base = p.settings.base_reachable_time;
  if (p.drawn_from != base || now - p.drawn_at > kRedraw) {
    p.drawn_from = base;
    p.drawn_at = now;
    const int64_t span = std::max<int64_t>(base.count(), 1);
    p.reachable_time =
        base / 2 + Nanos(static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(span))));
  }
  return p.reachable_time;
}

NeighborEntry* NeighborMachine::Create(IfaceSlot slot, const IpAddress& ip, Nanos now) {
  if (table_.used() >= table_.limit()) {
    NeighborEntry* victim = table_.FindVictim(now - kIdle);
    if (victim == nullptr) return nullptr;
    Drop(*victim);
  }
  NeighborEntry* e = table_.Insert(slot, ip);
  if (e == nullptr) return nullptr;
  e->used = e->updated = now;
  e->confirmed = now - parameters(*e).settings.base_reachable_time * 2;
  return e;
}

void NeighborMachine::Drop(NeighborEntry& e) {
  timers_.Cancel(table_.IndexOf(e));
  table_.Remove(e);
}

void NeighborMachine::Enter(NeighborEntry& e, NeighborState state, Nanos now) {
  if (state == NeighborState::kFailed && IsUsable(e.state)) ++changes_;
  table_.SetState(e, state);
  switch (state) {
    case NeighborState::kReachable:
      Arm(e, now + ReachableTime(e, now));
      break;
    case NeighborState::kDelay:
      Arm(e, now + std::max(parameters(e).settings.delay_first_probe_time, kShortest));
      break;
    case NeighborState::kStale:
    case NeighborState::kFailed:
      Arm(e, now + kStaleTime);
      break;
    case NeighborState::kPermanent:
    case NeighborState::kNoArp:
      timers_.Cancel(table_.IndexOf(e));
      break;
    case NeighborState::kNone:
    case NeighborState::kIncomplete:
    case NeighborState::kProbe:
      break;  // Ask sets their timer
  }
}

void NeighborMachine::StartDelay(NeighborEntry& e, Nanos now) {
  e.updated = now;
  Enter(e, NeighborState::kDelay, now);
}

packet::Verdict NeighborMachine::Hold(packet::Packet p, IfaceSlot slot, const IpAddress& next_hop,
                                      const tables::Snapshot& snapshot, Nanos now,
                                      packet::Outbox& outbox, WorkerCounters& counters) {
  UseSnapshot(snapshot);
  if (!devices_[slot.value].up) return packet::Verdict::Drop(DropReason::kInterfaceDown);
  NeighborEntry* e = table_.Find(slot, next_hop);
  if (e == nullptr) e = Create(slot, next_hop, now);
  if (e == nullptr) return packet::Verdict::Drop(DropReason::kNeighborTableFull);

  const tables::NeighborSettings& settings = parameters(*e).settings;
  const bool starts = e->state == NeighborState::kNone || e->state == NeighborState::kFailed;
  if (starts) {
    e->updated = now;
    if (settings.mcast_solicit == 0) {
      Enter(*e, NeighborState::kFailed, now);
      return packet::Verdict::Drop(DropReason::kNeighborFailed);
    }
    e->probes = static_cast<uint16_t>(settings.ucast_solicit);
    Enter(*e, NeighborState::kIncomplete, now);
  }
  e->used = now;
  p.out = slot;
  if (p.in.valid()) counters.of(p.in).held_packets.Add();
  if (IsUsable(e->state)) {  // it has been found in the meantime
    WriteLinkHeader(p, e->mac, devices_[slot.value].mac);
    PushHeld(arena_, ready_, p);
    return packet::Verdict::Held();
  }
  const uint32_t most =
      std::clamp<uint32_t>(settings.unres_qlen_packets, 1, std::numeric_limits<uint16_t>::max());
  while (e->held >= most) {
    PushHeld(arena_, lost_[kPushedOut], PopHeld(arena_, e->last_held));
    lost_any_ = true;
    --e->held;
  }
  PushHeld(arena_, e->last_held, p);
  ++e->held;
  if (starts) {
    Environment env{snapshot, outbox, counters};
    Ask(*e, now, env);
  }
  return packet::Verdict::Held();
}

bool NeighborMachine::TakeReady(packet::Packet& p, WorkerCounters& counters) {
  if (ready_ == packet::kNoFrame) return false;
  p = PopHeld(arena_, ready_);
  if (p.in.valid()) counters.of(p.in).held_packets.Sub();
  return true;
}

bool NeighborMachine::TakeLost(LostPacket& lost, WorkerCounters& counters) {
  static constexpr DropReason kReasons[kFateCount] = {
      DropReason::kNeighborFailed, DropReason::kNeighborQueueFull, DropReason::kInterfaceDown};
  for (size_t fate = 0; fate < kFateCount; ++fate) {
    if (lost_[fate] == packet::kNoFrame) continue;
    lost.packet = PopHeld(arena_, lost_[fate]);
    lost.reason = kReasons[fate];
    lost.report = fate == kFailed;
    if (lost.packet.in.valid()) counters.of(lost.packet.in).held_packets.Sub();
    return true;
  }
  lost_any_ = false;
  return false;
}

void NeighborMachine::ReleaseReady(NeighborEntry& e) {
  for (; e.held != 0; --e.held) {
    const packet::Packet p = PopHeld(arena_, e.last_held);
    WriteLinkHeader(p, e.mac, devices_[e.slot().value].mac);
    PushHeld(arena_, ready_, p);
  }
}

void NeighborMachine::ReleaseLost(NeighborEntry& e, Fate fate) {
  for (; e.held != 0; --e.held) {
    PushHeld(arena_, lost_[fate], PopHeld(arena_, e.last_held));
    lost_any_ = true;
  }
}

bool NeighborMachine::Update(NeighborEntry& e, const Mac* mac, NeighborState wanted, uint16_t flags,
                             bool admin, Nanos now) {
  const NeighborState old = e.state;
  if (IsFixed(old) && !admin) return false;
  const bool known = IsUsable(old);
  if (mac == nullptr && !known) return false;
  bool other_mac = mac != nullptr && !(known && *mac == e.mac);
  bool set_router = (flags & kEventSetRouter) != 0;

  if (IsConnected(wanted)) e.confirmed = now;
  if (known && other_mac && (flags & kEventOverride) == 0) {
    if ((flags & kEventWeakOverride) == 0 || !IsConnected(old)) return false;
    // Somebody else claims the address: ask before the next use, but keep what we have.
    other_mac = false;
    set_router = false;
    wanted = NeighborState::kStale;
  } else if (known && !other_mac && wanted == NeighborState::kStale && !admin) {
    wanted = old;  // nothing new
  }

  const bool changed = other_mac || wanted != old;
  if (changed) e.updated = now;
  if (other_mac) {
    if (known) ++changes_;
    e.mac = *mac;
    if (!IsConnected(wanted)) {
      e.confirmed = now - parameters(e).settings.base_reachable_time * 2;
    }
  }
  if (wanted != old) Enter(e, wanted, now);
  if (set_router) e.is_router = (flags & kEventRouter) != 0;
  if (!known) ReleaseReady(e);
  return changed;
}

bool NeighborMachine::Learn(const NeighborEvent& event, Nanos now) {
  const bool has_mac = event.Has(kEventHasMac);
  NeighborEntry* e = table_.Find(event.slot, event.address);
  if (e == nullptr) {
    if (!event.Has(kEventCreate) || !has_mac) return false;
    e = Create(event.slot, event.address, now);
    if (e == nullptr) return false;
  } else if (e->state == NeighborState::kFailed && event.Has(kEventNotFailed)) {
    return false;
  }
  uint16_t flags = event.flags;
  if (event.Has(kEventLockTime) && now > e->updated + kLockTime) flags |= kEventOverride;
  return Update(*e, has_mac ? &event.mac : nullptr,
                event.Has(kEventReachable) ? NeighborState::kReachable : NeighborState::kStale,
                flags, false, now);
}

void NeighborMachine::ApplyKernelNeighbor(IfaceSlot slot, const IpAddress& ip, const Mac& mac,
                                          uint16_t nud, Nanos now) {
  if (!slot.valid() || IsGroup(ip)) return;
  NeighborEntry* e = table_.Find(slot, ip);
  if ((nud & (kNudPermanent | kNudNoArp)) != 0) {
    if (e == nullptr) e = Create(slot, ip, now);
    if (e == nullptr) return;
    const NeighborState state =
        (nud & kNudPermanent) != 0 ? NeighborState::kPermanent : NeighborState::kNoArp;
    Update(*e, &mac, state, kEventOverride, true, now);
    return;
  }
  const bool valid = (nud & (kNudReachable | kNudStale | kNudDelay | kNudProbe)) != 0;
  if (!valid) {
    // Its search is its own affair; but an entry that we hold for fixed no longer is.
    if (e != nullptr && IsFixed(e->state)) {
      ++changes_;
      Drop(*e);
    }
    return;
  }
  if (e == nullptr) e = Create(slot, ip, now);
  if (e == nullptr) return;
  // We do our own confirming. The kernel's word counts where we know nothing, where ours was fixed
  // by it, and where it has a fresh answer and we have not.
  const bool fresher = (nud & kNudReachable) != 0 && e->state != NeighborState::kReachable &&
                       IsUsable(e->state) && e->mac != mac;
  if (!IsUsable(e->state) || IsFixed(e->state) || fresher) {
    Update(*e, &mac, NeighborState::kStale, kEventOverride, true, now);
  }
}

void NeighborMachine::RemoveKernelNeighbor(IfaceSlot slot, const IpAddress& ip, Nanos now) {
  NeighborEntry* e = table_.Find(slot, ip);
  if (e == nullptr) return;
  if (IsFixed(e->state)) {
    ++changes_;
    Drop(*e);
  } else if (IsUsable(e->state)) {
    Update(*e, nullptr, NeighborState::kStale, 0, true, now);
  }
}

void NeighborMachine::InterfaceDown(IfaceSlot slot) {
  for (uint32_t i = 0; i < table_.places(); ++i) {
    NeighborEntry& e = table_.At(i);
    if (!e.in_use() || e.slot() != slot || IsFixed(e.state)) continue;
    ReleaseLost(e, kDown);
    ++changes_;
    Drop(e);
  }
}

void NeighborMachine::Advance(Nanos now, const tables::Snapshot& snapshot, packet::Outbox& outbox,
                              WorkerCounters& counters) {
  UseSnapshot(snapshot);
  Environment env{snapshot, outbox, counters};
  timers_.Advance(
      now, [&](uint32_t timer) { OnTimer(table_.At(timer), now, env); }, kTimersPerAdvance);
}

void NeighborMachine::OnTimer(NeighborEntry& e, Nanos now, Environment& env) {
  const Nanos delay = parameters(e).settings.delay_first_probe_time;
  switch (e.state) {
    case NeighborState::kReachable: {
      const Nanos expires = e.confirmed + ReachableTime(e, now);
      if (now < expires) {
        Arm(e, expires);
        return;
      }
      e.updated = now;
      Enter(e, now <= e.used + delay ? NeighborState::kDelay : NeighborState::kStale, now);
      return;
    }
    case NeighborState::kDelay:
      e.updated = now;
      if (now <= e.confirmed + delay) {
        Enter(e, NeighborState::kReachable, now);
        Arm(e, std::max(e.confirmed + ReachableTime(e, now), now + kShortest));
        return;
      }
      e.probes = 0;
      Enter(e, NeighborState::kProbe, now);
      Ask(e, now, env);
      return;
    case NeighborState::kIncomplete:
    case NeighborState::kProbe:
      Ask(e, now, env);
      return;
    case NeighborState::kStale:
    case NeighborState::kFailed:
      Collect(e, now);
      return;
    case NeighborState::kNone:
    case NeighborState::kPermanent:
    case NeighborState::kNoArp:
      return;  // have no timer
  }
}

void NeighborMachine::Ask(NeighborEntry& e, Nanos now, Environment& env) {
  const tables::NeighborSettings& settings = parameters(e).settings;
  const bool incomplete = e.state == NeighborState::kIncomplete;
  const uint32_t most = settings.ucast_solicit + (incomplete ? settings.mcast_solicit : 0);
  if (e.probes >= most) {
    e.updated = now;
    Enter(e, NeighborState::kFailed, now);
    ReleaseLost(e, kFailed);
    return;
  }
  Arm(e, now + std::max(settings.retrans_time, kShortest));
  // The newest packet that waits tells the source address, as in the kernel.
  const packet::Packet* newest =
      e.held == 0 ? nullptr : &packet::HeldOf(arena_, e.last_held).packet;
  Solicit({.address = e.ip(),
           .slot = e.slot(),
           .known_mac = incomplete ? nullptr : &e.mac,
           .waiting = newest},
          env.snapshot, env.outbox, env.counters);
  ++e.probes;
}

void NeighborMachine::Collect(NeighborEntry& e, Nanos now) {
  const Nanos last_use = std::max(e.used, e.confirmed);
  if (table_.used() <= kKeepEntries) {
    Arm(e, now + kStaleTime);
  } else if (e.state == NeighborState::kFailed || now >= last_use + kStaleTime) {
    Drop(e);
  } else {
    Arm(e, last_use + kStaleTime);
  }
}

}  // namespace sluice::stages
