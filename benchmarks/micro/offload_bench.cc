// What a frame costs in the XDP program, in nanoseconds: with the flow tier off, with an entry
// (plain, translated, of a route, of a relay), without one. By BPF_PROG_TEST_RUN, so without a
// driver, and without what happens to a frame behind the program. Needs root.
//
//   sudo build/offload_bench
//
// A frame is run 200 times in a row, as the program left it; so entries here send it to the
// interface it came by, and translate it to what it is. Each figure is the median of 2,000 such
// runs, each with another one of 10,000 flows. So the caches are warm, which they are less with
// real traffic.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "base/byte_order.h"
#include "support/offload_flow.h"
#include "support/offload_rig.h"
#include "wire/checksum.h"

namespace sluice {
namespace {

using test::Bytes;
using test::OffloadFlow;
using test::OffloadRig;

constexpr uint32_t kRepeat = 200;  // hops that a frame has
constexpr int kRuns = 2000;
constexpr uint32_t kFlows = 10000;

Bytes Frame(const tables::FlowTuple& t, size_t size, const Bytes& options = {}) {
  test::PacketBuilder b;
  b.Ethernet(test::kHostMac, test::kLanMac);
  if (t.family == Family::kIpv4) {
    b.Ipv4(Ipv4(static_cast<uint32_t>(t.source.lo)), Ipv4(static_cast<uint32_t>(t.destination.lo)));
  } else {
    b.Ipv6(t.source, t.destination);
  }
  b.Ttl(255).Tcp(t.source_port, t.destination_port);
  if (!options.empty()) b.Options(options);
  const size_t headers = b.Build().size();
  return b.Payload(size > headers ? size - headers : 0).Build();
}

// A partial checksum that is as partial when it has been completed.
Bytes Partial(Bytes frame) {
  const size_t l4 = frame[12] == 0x08 ? 34 : 54;
  const auto length = static_cast<uint32_t>(frame.size() - l4);
  const uint32_t pseudo = l4 == 34 ? wire::PseudoHeaderSum(Ipv4::FromWire(&frame[26]),
                                                           Ipv4::FromWire(&frame[30]), 6, length)
                                   : wire::PseudoHeaderSum(Ipv6::FromWire(&frame[22]),
                                                           Ipv6::FromWire(&frame[38]), 6, length);
  StoreBe16(&frame[l4 + 16], wire::Fold(pseudo));
  StoreBe16(&frame[l4 + 18], 0);  // the urgent pointer, which means nothing
  const uint32_t sum = wire::Sum({&frame[l4], length});
  // pseudo + rest + x = ~pseudo
  StoreBe16(&frame[l4 + 18], wire::Fold(uint64_t{static_cast<uint16_t>(~wire::Fold(pseudo))} +
                                        static_cast<uint16_t>(~sum)));
  return frame;
}

uint32_t Measure(OffloadRig& rig, const std::vector<Bytes>& frames) {
  std::vector<uint32_t> times;
  for (int i = 0; i < kRuns; ++i) {
    rig.Forwards(frames[static_cast<size_t>(i) % frames.size()], kRepeat);
    times.push_back(rig.nanoseconds());
  }
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  return times[kRuns / 2];
}

class Table {
 public:
  explicit Table(OffloadRig& rig) : rig_(rig) {}

  void Family(sluice::Family family) {
    OffloadFlow flow;
    flow.in.family = family;
    flow.in.protocol = 6;
    flow.in.destination_port = 443;
    std::vector<tables::OffloadChange> changes;
    std::vector<OffloadFlow> flows;
    for (uint32_t i = 0; i < kFlows; ++i) {
      flow.id = i;
      flow.in.source_port = static_cast<uint16_t>(1024 + i);
      const bool v4 = family == sluice::Family::kIpv4;
      flow.in.source = v4 ? Ipv6(0, 0x0a000002) : Ipv6(0x20010db800000000, 2);
      flow.in.destination = v4 ? Ipv6(0, 0xc6336400 + (i >> 8)) : Ipv6(0x20010db800070000, i);
      flow.out = flow.in;
      flows.push_back(flow);
    }
    const auto install = [&](bool translate, sluice_offload_mode mode = SLUICE_OFFLOAD_FLOW) {
      changes.clear();
      for (OffloadFlow& f : flows) {
        ++f.epoch;
        rig_.Live(f.id, f.epoch);
        changes.push_back(MakeChange(f, rig_.memory(), mode));
        test::kLanMac.ToWire(changes.back().action().link);
        if (translate) Translate(f, changes.back());
      }
      rig_.Apply(changes);
    };
    std::vector<Bytes> small, large, partial, stamped;
    for (uint32_t i = 0; i < kFlows; i += kFlows / kRuns) {
      small.push_back(Frame(flows[i].in, 64));
      large.push_back(Frame(flows[i].in, 1514));
      partial.push_back(Partial(large.back()));
      stamped.push_back(Frame(flows[i].in, 1514, {1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}));
    }
    const char* const name = family == sluice::Family::kIpv4 ? "IPv4" : "IPv6";
    const auto row = [&](const char* what, const std::vector<Bytes>& frames) {
      std::printf("%s  %-46s %5u ns\n", name, what, Measure(rig_, frames));
    };
    const uint32_t on = SLUICE_OFFLOAD_WORD(SLUICE_OFFLOAD_FLOW, SLUICE_OFFLOAD_FLOW, 0, 0);
    const uint32_t complete = on | SLUICE_OFFLOAD_WORD(0, 0, 0, 1);
    install(false);
    rig_.program().SetOffload(0);
    row("off", small);
    rig_.program().SetOffload(on);
    row("plain", small);
    install(true);
    row("translated", small);
    rig_.program().SetOffload(complete);
    row("..., checksums looked at", small);
    row("..., 1,514 bytes", large);
    row("..., 1,514 bytes with a partial checksum", partial);
    rig_.program().SetOffload(on | SLUICE_OFFLOAD_WORD(0, 0, 9, 0));
    row("no entry", small);
    rig_.program().SetOffload(on);
    tables::BumpWorld(rig_.memory());
    row("an entry of the past", small);
    const uint32_t routes =
        SLUICE_OFFLOAD_WORD(SLUICE_OFFLOAD_DESTINATION, SLUICE_OFFLOAD_DESTINATION, 0, 0);
    rig_.program().SetOffload(routes | SLUICE_OFFLOAD_RELAYS);
    install(true);
    Splice(flows, changes);
    row("a relay's segment, 1,514 bytes", stamped);
    rig_.program().SetOffload(routes | SLUICE_OFFLOAD_RELAYS | SLUICE_OFFLOAD_WORD(0, 0, 9, 0));
    row("neither a route nor a relay", small);
    rig_.program().SetOffload(routes);
    row("no route", small);
    for (tables::OffloadChange& change : changes) change = test::Removal(change);
    rig_.Apply(changes);  // or there is no room
    install(false, SLUICE_OFFLOAD_DESTINATION);
    row("a route", small);
  }

 private:
  // The connections are also relays'.
  void Splice(const std::vector<OffloadFlow>& flows, std::vector<tables::OffloadChange>& changes) {
    for (size_t i = 0; i < flows.size(); ++i) {
      rig_.memory().splices[flows[i].id] = {.seq = 0x12345678,
                                            .ack = 0x87654321,
                                            .tsval = 12345,
                                            .tsecr = 54321,
                                            .window_left = 1,
                                            .window_right = 0,
                                            .timestamps = 1,
                                            .reserved = {}};
      changes[i].action().flags |= SLUICE_OFFLOAD_RELAY | SLUICE_OFFLOAD_SPLICE;
    }
    rig_.Apply(changes);
  }

  // To what it is, at the cost of a translation.
  static void Translate(const OffloadFlow& flow, tables::OffloadChange& change) {
    sluice_offload_action& a = change.action();
    a.flags = SLUICE_OFFLOAD_REWRITE;
    a.l3_delta = a.l4_delta = 0xffff;
    a.source_port = __builtin_bswap16(flow.in.source_port);
    a.destination_port = __builtin_bswap16(flow.in.destination_port);
    if (change.family == sluice::Family::kIpv4) {
      change.entry4.source = change.key4.source;
      change.entry4.destination = change.key4.destination;
    } else {
      std::copy_n(change.key6.source, 4, change.entry6.source);
      std::copy_n(change.key6.destination, 4, change.entry6.destination);
    }
  }

  OffloadRig& rig_;
};

}  // namespace
}  // namespace sluice

int main() {
  sluice::test::OffloadRig rig(/*multi_buffer=*/true, sluice::kFlows);
  sluice::Table table(rig);
  table.Family(sluice::Family::kIpv4);
  table.Family(sluice::Family::kIpv6);
}
