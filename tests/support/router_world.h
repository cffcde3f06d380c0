// A small router for tests of the stages and the pipeline: frames, an outbox, routing tables and a
// snapshot of two served interfaces.
//
//   lan0  slot 0, ifindex 10, 02:00:00:00:00:01, 10.0.0.1/24,  2001:db8::1/64,   fe80::1/64
//   wan0  slot 1, ifindex 11, 02:00:00:00:00:02, 192.0.2.1/24, 2001:db8:1::1/64, fe80::2/64
//
// Both forward. The tables hold the connected and local routes, as the kernel would; tests add
// others with Unicast() and Route(). CheckFrames() says whether every frame is back in the pool.
#ifndef SLUICE_TESTS_SUPPORT_ROUTER_WORLD_H_
#define SLUICE_TESTS_SUPPORT_ROUTER_WORLD_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/worker_counters.h"
#include "packet/frame_arena.h"
#include "packet/frame_pool.h"
#include "packet/outbox.h"
#include "packet/packet.h"
#include "stages/route/route.h"
#include "support/packet_builder.h"
#include "tables/epoch.h"
#include "tables/fib.h"
#include "tables/route_table.h"
#include "tables/snapshot.h"

namespace sluice::test {

inline constexpr IfaceSlot kLan{0};
inline constexpr IfaceSlot kWan{1};
inline constexpr IfIndex kLanIndex{10};
inline constexpr IfIndex kWanIndex{11};
inline constexpr IfIndex kTunnelIndex{99};  // not served
inline const Mac kLanMac{{2, 0, 0, 0, 0, 1}};
inline const Mac kWanMac{{2, 0, 0, 0, 0, 2}};
inline const Mac kHostMac{{2, 0, 0, 0, 0, 0xaa}};  // on the LAN
inline const Mac kPeerMac{{2, 0, 0, 0, 0, 0xbb}};  // on the WAN

inline Ipv4 A4(const char* text) { return Ipv4Arg(text).value; }
inline Ipv6 A6(const char* text) { return Ipv6Arg(text).value; }

inline tables::Path Via(IfaceSlot slot, IfIndex oif, const char* gateway = nullptr) {
  tables::Path path;
  path.slot = slot;
  path.oif = oif;
  if (gateway != nullptr) {
    path.has_gateway = true;
    path.gateway = *ParseIpAddress(gateway);
  }
  return path;
}

class RouterWorld {
 public:
  static constexpr uint32_t kFrames = 4096;

  RouterWorld()
      : arena(packet::FrameArena::Create(kFrames, 2048)),
        pool(*arena),
        outbox(pool),
        routes(epochs, 1000),
        fib4(epochs, {1000, size_t{16} << 20, false}),
        fib6(epochs, {1000, size_t{16} << 20, false}) {
    for (uint32_t i = 0; i < kFrames; ++i) pool.Free(i);
    AddInterface(kLan, "lan0", kLanIndex, kLanMac, "10.0.0.1", "2001:db8::1", "fe80::1");
    AddInterface(kWan, "wan0", kWanIndex, kWanMac, "192.0.2.1", "2001:db8:1::1", "fe80::2");
    snapshot.own4.Assign({A4("10.0.0.1"), A4("192.0.2.1"), A4("10.99.0.1")});
    snapshot.generation = 1;
    for (const char* own : {"10.0.0.1", "192.0.2.1", "10.99.0.1", "127.0.0.1"}) {
      Route(std::string(own) + "/32", tables::RouteType::kLocal);
    }
    for (const char* own : {"2001:db8::1", "2001:db8:1::1"}) {
      Route(std::string(own) + "/128", tables::RouteType::kLocal);
    }
    Route("10.0.0.255/32", tables::RouteType::kBroadcast);
    Route("192.0.2.255/32", tables::RouteType::kBroadcast);
    Unicast("10.0.0.0/24", {Via(kLan, kLanIndex)}, "10.0.0.1");
    Unicast("192.0.2.0/24", {Via(kWan, kWanIndex)}, "192.0.2.1");
    Unicast("2001:db8::/64", {Via(kLan, kLanIndex)});
    Unicast("2001:db8:1::/64", {Via(kWan, kWanIndex)});
  }

  tables::Interface& lan() { return snapshot.interfaces[kLan.value]; }
  tables::Interface& wan() { return snapshot.interfaces[kWan.value]; }
  stages::RoutingTables routing() const { return {fib4, fib6, routes}; }

  tables::RouteId Add(const std::string& prefix, tables::Route&& route) {
    const tables::RouteId id = *routes.Intern(std::move(route));
    if (const auto v4 = ParseIpv4Prefix(prefix)) {
      EXPECT_TRUE(fib4.Insert(*v4, id).ok());
    } else {
      EXPECT_TRUE(fib6.Insert(*ParseIpv6Prefix(prefix), id).ok());
    }
    return id;
  }
  tables::RouteId Route(const std::string& prefix, tables::RouteType type) {
    tables::Route route;
    route.type = type;
    return Add(prefix, std::move(route));
  }
  tables::RouteId Unicast(const std::string& prefix, std::vector<tables::Path> paths,
                          const char* prefsrc = nullptr, uint32_t mtu = 0) {
    tables::Route route;
    for (const tables::Path& path : paths) route.paths.push_back(path);
    route.mtu = mtu;
    if (prefsrc != nullptr) {
      route.has_prefsrc = true;
      route.prefsrc = *ParseIpAddress(prefsrc);
    }
    return Add(prefix, std::move(route));
  }

  // A received packet, in pieces of `segment` bytes, or of as many as a chunk holds.
  packet::Packet Receive(const Bytes& bytes, IfaceSlot in = kLan, uint32_t segment = 0) {
    const auto size = static_cast<uint32_t>(bytes.size());
    const uint32_t room = arena->chunk_size() - packet::kHeadroom;
    const uint32_t piece = segment == 0 ? room : std::min(segment, room);
    packet::Packet p;
    EXPECT_TRUE(outbox.NewPacket(std::min(size, piece), p));
    p.in = in;
    p.length = size;
    std::copy_n(bytes.begin(), p.segment_length, p.data);
    packet::FrameIndex last = p.frame;
    for (uint32_t at = p.segment_length; at < size; at += piece) {
      const uint32_t n = std::min(piece, size - at);
      const packet::FrameIndex frame = pool.Alloc();
      std::copy_n(bytes.begin() + at, n, arena->Chunk(frame) + packet::kHeadroom);
      packet::LinkOf(*arena, last) = {frame, packet::kHeadroom, static_cast<uint16_t>(n)};
      last = frame;
      ++p.segment_count;
    }
    return p;
  }
  Bytes BytesOf(const packet::Packet& p, uint32_t from = 0) const {
    Bytes bytes(p.length - from);
    packet::CopyOut(*arena, p, from, bytes.data(), p.length - from);
    return bytes;
  }
  void Free(const packet::Packet& p) { packet::FreePacket(pool, p); }
  void CheckFrames() const { EXPECT_EQ(pool.size(), kFrames) << "frames were lost"; }

  std::unique_ptr<packet::FrameArena> arena;
  packet::FramePool pool;
  packet::Outbox outbox;
  tables::EpochDomain epochs;
  tables::RouteTable routes;
  tables::Fib4 fib4;
  tables::Fib6 fib6;
  tables::Snapshot snapshot;

 private:
  void AddInterface(IfaceSlot slot, std::string name, IfIndex index, const Mac& mac, const char* v4,
                    const char* v6, const char* link_local) {
    tables::Interface& i = snapshot.interfaces[slot.value];
    i.slot = slot;
    i.name = std::move(name);
    i.ifindex = index;
    i.mac = mac;
    i.up = true;
    i.forwarding4 = i.forwarding6 = true;
    i.addresses4 = {{.address = A4(v4), .prefix_length = 24}};
    i.addresses6 = {{.address = A6(v6), .prefix_length = 64},
                    {.address = A6(link_local), .prefix_length = 64}};
    outbox.Enable(slot);
  }
};

// To our LAN interface, from a host there.
inline PacketBuilder FromHost() { return PacketBuilder().Ethernet(kHostMac, kLanMac); }
// To our WAN interface, from the router there.
inline PacketBuilder FromPeer() { return PacketBuilder().Ethernet(kPeerMac, kWanMac); }

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_ROUTER_WORLD_H_
