#include "packetdrill/machine.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/byte_order.h"
#include "support/packet_builder.h"

namespace sluice::test {
namespace {

// Whether no other thread of this process runs, or could.
bool OthersWait() {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    if (task.path().filename() == std::to_string(gettid())) continue;
    std::ifstream file(task.path() / "stat");  // proc(5): the state stands behind the name
    std::string stat;
    std::getline(file, stat);
    const size_t name_end = stat.rfind(") ");
    if (name_end != std::string::npos && stat[name_end + 2] == 'R') return false;
  }
  return true;
}

}  // namespace

Machine::Machine(const std::string& flags)
    : local_(*ParseIpAddress("192.168.0.1")), local6_(*ParseIpAddress("fd3d:fa7b:d17d::1")) {
  std::istringstream list(flags);
  for (std::string item; std::getline(list, item, ',');) {
    const size_t equals = item.find('=');
    if (equals == std::string::npos) continue;
    const std::string name = item.substr(0, equals);
    const std::string value = item.substr(equals + 1);
    if (name == "mtu") {
      mtu_ = static_cast<uint32_t>(std::stoul(value));
    } else if (const auto address = ParseIpAddress(value)) {
      (address->is_v4() ? local_ : local6_) = *address;
    }
  }
}

TransportHost& Machine::host() {
  if (host_ != nullptr) return *host_;
  tunables_ = ReadTunables();
  TransportHost::Options options;
  options.address = local_;
  options.address6 = local6_;
  options.mtu = mtu_;
  // Scripts send segments of any size, for what a kernel would collect from the wire.
  options.frames = 1024;
  options.chunk_size = 32768;
  options.config.tcp = tunables_.tcp;
  options.config.udp.sockets = 16;
  options.config.start = now_;
  host_ = std::make_unique<TransportHost>(options);
  host_->on_output = [this](std::vector<uint8_t> packet, Nanos when) {
    sent_.emplace_back(when, std::move(packet));
  };
  return *host_;
}

// What the kernel behind the stack would answer to a segment that belongs to nobody (RFC 9293
// section 3.10.7.1).
void Machine::ResetUnclaimed(std::span<const uint8_t> packet) {
  const bool v6 = packet[0] >> 4 == 6;
  const size_t ip = v6 ? 40 : (packet[0] & 15) * size_t{4};
  if (packet.size() < ip + 20 || packet[v6 ? 6 : 9] != 6) return;
  const uint8_t* tcp = packet.data() + ip;
  const uint8_t flags = tcp[13];
  if ((flags & 4) != 0) return;
  const uint32_t length = static_cast<uint32_t>(packet.size() - ip) - (tcp[12] >> 4) * 4u +
                          (flags & 1) + (flags >> 1 & 1);
  PacketBuilder b;
  if (v6) {
    b.Ipv6(ToString(Ipv6::FromWire(&packet[24])), ToString(Ipv6::FromWire(&packet[8])));
  } else {
    b.Ipv4(ToString(Ipv4::FromWire(&packet[16])), ToString(Ipv4::FromWire(&packet[12])));
  }
  const bool ack = (flags & 16) != 0;
  b.Tcp(LoadBe16(tcp + 2), LoadBe16(tcp), static_cast<uint8_t>(ack ? 4 : 20))
      .Sequence(ack ? LoadBe32(tcp + 8) : 0, ack ? 0 : LoadBe32(tcp + 4) + length)
      .Window(0);
  sent_.emplace_back(now_, b.Build());
}

void Machine::Deliver(Held lock, std::span<const uint8_t> packet) {
  AwaitReleased(lock);
  if (!host().Deliver({packet.begin(), packet.end()}, now_)) ResetUnclaimed(packet);
  Release();
}

bool Machine::NextPacket(Held lock, std::vector<uint8_t>& packet, Nanos& sent) {
  for (;;) {
    AwaitReleased(lock);
    if (!sent_.empty()) {
      sent = sent_.front().first;
      packet = std::move(sent_.front().second);
      sent_.pop_front();
      return true;
    }
    if (!Step(Nanos::Max())) return false;
  }
}

void Machine::Sleep(Held lock, Nanos time) {
  const Nanos end = now_ + time;
  if (returning_) {
    // The thread whose call came back needs packetdrill's own lock next, which is free only while we are
    // in here. It has been there when it waits for something again.
    returning_ = false;
    lock.unlock();
    while (!OthersWait()) std::this_thread::sleep_for(std::chrono::microseconds(100));
    lock.lock();
  }
  do {
    AwaitReleased(lock);
  } while (Step(end));
  AwaitReleased(lock);
  now_ = std::max(now_, end);
}

Nanos Machine::ReadClock(Held lock) {
  if (released_.erase(std::this_thread::get_id()) > 0) {
    returning_ = true;
    changed_.notify_all();
    return now_;
  }
  AwaitReleased(lock);
  now_ += Micros(1);
  Step(now_);
  return now_;
}

Nanos Machine::NextEvent() {
  Nanos next = host_ != nullptr ? host_->stack().NextDeadline() : Nanos::Max();
  for (const Waiter& w : waiters_) {
    if (!w.released) next = std::min(next, w.deadline);
  }
  return next == Nanos::Max() ? next : std::max(next, now_);
}

bool Machine::Step(Nanos end) {
  const Nanos next = NextEvent();
  if (next == Nanos::Max() || next > end) return false;
  now_ = next;
  host().stack().OnTimer(now_);
  // The wheel's ticks are coarser than its deadlines: never stand still on one that is not due.
  if (NextEvent() <= now_) now_ += Micros(10);
  Release();
  return true;
}

void Machine::Release() {
  bool any = false;
  for (Waiter& w : waiters_) {
    if (w.released || !((*w.done)() || now_ >= w.deadline)) continue;
    w.released = true;
    ++releasing_;
    any = true;
  }
  if (any) changed_.notify_all();
}

void Machine::AwaitReleased(Held lock) {
  changed_.wait(lock, [&] { return releasing_ == 0 && released_.empty(); });
}

bool Machine::WaitFor(Held lock, const std::function<bool()>& done, Nanos time) {
  const Nanos deadline = time == Nanos::Max() ? time : now_ + time;
  released_.erase(std::this_thread::get_id());  // it waits again
  changed_.notify_all();
  if (done()) return true;
  if (std::this_thread::get_id() == main_) {
    while (deadline != Nanos::Max() && Step(deadline)) {
      if (done()) return true;
    }
    if (deadline != Nanos::Max()) now_ = std::max(now_, deadline);
    return done();
  }
  const auto self = waiters_.insert(waiters_.end(), Waiter{&done, deadline});
  changed_.wait(lock, [&] { return self->released; });
  waiters_.erase(self);
  --releasing_;
  released_.insert(std::this_thread::get_id());
  changed_.notify_all();
  return done();
}

}  // namespace sluice::test
