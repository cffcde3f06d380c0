// The early filter with many denied prefixes, against a bare XDP_DROP program.
//   early_drop time [PREFIXES]
//       nanoseconds per packet by BPF_PROG_RUN, each packet from another source address
//   early_drop attach INTERFACE bare|early FILE
//       attaches one of the two to INTERFACE, in native mode; the early filter denies the addresses
//       in FILE (one a line) as sources or destinations. "read" answers with the frames received.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "bpf/include/abi.h"
#include "command_loop.h"
#include "early_drop.skel.h"
#include "io/af_xdp/early_filter.h"
#include "io/af_xdp/early_limits.h"
#include "rig_abi.h"
#include "tables/early_program.h"

namespace sluice::rig {
namespace {

using io::af_xdp::EarlyFilter;
using io::af_xdp::EarlyLimits;
using Ranges = tables::EarlyRanges<Ipv4>;

const uint8_t kMac[8] = {2, 0, 0, 0, 0, 1};

Ranges Normal(Ranges ranges) {
  std::sort(ranges.begin(), ranges.end());
  Ranges out;
  for (const auto& range : ranges) {
    if (!out.empty() && uint64_t{range.first.value} <= uint64_t{out.back().last.value} + 1) {
      out.back().last = std::max(out.back().last, range.last);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

// As lists of networks to deny are: half /24, the rest single addresses and longer prefixes.
Ranges RandomPrefixes(size_t count, Rng& rng, std::vector<Ipv4>& inside) {
  Ranges ranges;
  for (size_t i = 0; i < count; ++i) {
    const auto address = static_cast<uint32_t>((1 + rng.Below(222)) << 24 | rng.Below(1 << 24));
    const uint64_t length = rng.Chance(1, 2) ? 24 : rng.Chance(1, 2) ? 32 : 25 + rng.Below(7);
    const uint32_t mask = ~uint32_t{0} << (32 - length);
    ranges.push_back({Ipv4(address & mask), Ipv4(address | ~mask)});
    inside.push_back(Ipv4(address));
  }
  return Normal(ranges);
}

tables::EarlyProgram Deny(const Ranges& ranges, bool ingress, bool both) {
  tables::EarlyProgram program;
  program.sets4 = {std::make_shared<const Ranges>(ranges)};
  for (size_t d = 0; d < (both ? 2u : 1u); ++d) {
    tables::EarlyRule rule;
    rule.key = {5, "deny", "ingress", d + 1};
    rule.ingress = ingress;
    rule.families = tables::kEarlyIpv4;
    rule.addresses4[d] = {{0, false}};
    rule.verdict = tables::EarlyVerdict::kDrop;
    program.rules.push_back(rule);
  }
  return program;
}

struct Loaded {
  early_drop_bpf* skeleton = nullptr;
  std::unique_ptr<EarlyLimits> limits;
  std::unique_ptr<EarlyFilter> filter;
};

Loaded Load() {
  Loaded l;
  l.skeleton = early_drop_bpf__open_and_load();
  if (l.skeleton == nullptr) Fail("cannot load the programs");
  auto limits = EarlyLimits::Create();
  if (!limits.ok()) Fail(std::string(limits.status().message()));
  l.limits = *std::move(limits);
  auto filter = EarlyFilter::Create({.cores = bpf_map__fd(l.skeleton->maps.early_cores),
                                     .pages = bpf_map__fd(l.skeleton->maps.early_pages),
                                     .tries = bpf_map__fd(l.skeleton->maps.early_tries),
                                     .stats = bpf_map__fd(l.skeleton->maps.stats),
                                     .word = &l.skeleton->bss->config.early},
                                    *l.limits);
  if (!filter.ok()) Fail(std::string(filter.status().message()));
  l.filter = *std::move(filter);
  std::memcpy(const_cast<__u64*>(&l.skeleton->bss->config.own_mac), kMac, 8);
  l.skeleton->bss->config.enabled = 1;
  return l;
}

void Install(Loaded& l, const tables::EarlyProgram& program) {
  const auto installed = l.filter->Install(program);
  if (!installed.ok()) Fail(std::string(installed.status().message()));
}

// The frame that is sent, but for its source address and checksum.
std::vector<uint8_t> Frame() {
  std::vector<uint8_t> frame(60);
  std::memcpy(frame.data(), kMac, 6);
  const uint8_t header[] = {8,  0, 0x45, 0, 0, 46, 0, 0,  0x40, 0, 64,
                            17, 0, 0,    0, 0, 0,  0, 10, 0,    0, 1};
  std::copy(std::begin(header), std::end(header), frame.begin() + 12);
  return frame;
}

void SetTargets(Loaded& l, const std::vector<Ipv4>& addresses) {
  const std::vector<uint8_t> frame = Frame();
  const size_t count = std::min<size_t>(addresses.size(), RIG_MAX_TARGETS);
  for (uint32_t i = 0; i < count; ++i) {
    rig_target target{};
    addresses[i].ToWire(target.address);
    uint32_t sum = 0;
    uint16_t word;
    for (size_t at = 14; at < 34; at += 2) {
      std::memcpy(&word, frame.data() + at, 2);
      sum += word;
    }
    for (size_t at = 0; at < 4; at += 2) {
      std::memcpy(&word, target.address + at, 2);
      sum += word;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    target.ip_checksum = static_cast<uint16_t>(~((sum & 0xffff) + (sum >> 16)));
    if (bpf_map_update_elem(bpf_map__fd(l.skeleton->maps.targets), &i, &target, 0) != 0) {
      Fail("cannot write the list of addresses");
    }
  }
  l.skeleton->data->target_count = static_cast<uint32_t>(count);
}

// The best of several runs, so that what else the machine does counts little.
double Nanoseconds(const bpf_program* program, uint32_t action) {
  std::vector<uint8_t> frame = Frame();
  uint32_t best = UINT32_MAX;
  for (int i = 0; i < 12; ++i) {
    bpf_test_run_opts opts{};
    opts.sz = sizeof opts;
    opts.data_in = frame.data();
    opts.data_size_in = static_cast<uint32_t>(frame.size());
    opts.repeat = 1'000'000;
    if (bpf_prog_test_run_opts(bpf_program__fd(program), &opts) != 0) Fail("cannot run a program");
    if (opts.retval != action) Fail("a packet was not decided as expected");
    best = std::min(best, opts.duration);
  }
  return best;
}

int Time(size_t count) {
  Loaded l = Load();
  Rng rng(1);
  std::vector<Ipv4> denied;
  const Ranges ranges = RandomPrefixes(count, rng, denied);
  std::vector<Ipv4> others;
  while (others.size() < denied.size()) {
    const Ipv4 a(static_cast<uint32_t>((1 + rng.Below(222)) << 24 | rng.Below(1 << 24)));
    const auto at = std::partition_point(ranges.begin(), ranges.end(),
                                         [&](const auto& r) { return r.last < a; });
    if (at == ranges.end() || a < at->first) others.push_back(a);
  }
  SetTargets(l, denied);
  const auto& programs = l.skeleton->progs;
  const auto say = [](const char* what, double ns) { std::cout << what << ": " << ns << " ns\n"; };
  say("bare XDP_DROP, and a new source address", Nanoseconds(programs.time_bare, XDP_DROP));
  uint64_t begin = MonotonicNanos();
  Install(l, Deny(ranges, true, false));
  const uint64_t installed = MonotonicNanos() - begin;
  say("early filter, ingress chain, denied", Nanoseconds(programs.time_early, XDP_DROP));
  Install(l, Deny(ranges, false, false));
  say("early filter, raw chain, denied", Nanoseconds(programs.time_early, XDP_DROP));
  SetTargets(l, others);
  say("early filter, not denied (with the whole way to no socket)",
      Nanoseconds(programs.time_early, XDP_PASS));
  Install(l, tables::EarlyProgram());
  say("no early filter, the same", Nanoseconds(programs.time_early, XDP_PASS));

  Install(l, Deny(ranges, true, false));
  uint64_t slowest = 0;
  uint64_t sum = 0;
  Ranges changed = ranges;
  for (int i = 0; i < 20; ++i) {
    changed.erase(changed.begin() + static_cast<long>(rng.Below(changed.size())));
    const tables::EarlyProgram program = Deny(changed, true, false);
    begin = MonotonicNanos();
    Install(l, program);
    sum += MonotonicNanos() - begin;
    slowest = std::max(slowest, MonotonicNanos() - begin);
  }
  std::cout << ranges.size() << " ranges put in force in " << installed / 1e6
            << " ms, one removed in " << sum / 20 / 1e6 << " ms (slowest " << slowest / 1e6
            << " ms), " << (l.filter->page_bytes() >> 20) << " MiB\n";
  return 0;
}

int Attach(const std::string& interface, bool early, const std::string& file) {
  const unsigned ifindex = if_nametoindex(interface.c_str());
  if (ifindex == 0) Fail("no interface " + interface);
  Loaded l = Load();
  std::ifstream in(file);
  Ranges ranges;
  for (std::string line; std::getline(in, line);) {
    const std::optional<Ipv4> address = ParseIpv4(line);
    if (!address) Fail("not an IPv4 address: " + line);
    ranges.push_back({*address, *address});
  }
  if (ranges.empty()) Fail("no addresses in " + file);
  Install(l, Deny(Normal(ranges), true, true));
  const bpf_program* program = early ? l.skeleton->progs.xdp_ingress : l.skeleton->progs.bare;
  bpf_link_create_opts opts{};
  opts.sz = sizeof opts;
  opts.flags = XDP_FLAGS_DRV_MODE;
  const int link =
      bpf_link_create(bpf_program__fd(program), static_cast<int>(ifindex), BPF_XDP, &opts);
  if (link < 0) Fail(std::string("cannot attach: ") + std::strerror(-link));
  Say("{\"ready\":true}");
  RunCommands([&](const std::string& line) {
    if (line != "read") return false;
    std::ifstream counter("/sys/class/net/" + interface + "/statistics/rx_packets");
    uint64_t packets = 0;
    counter >> packets;
    uint64_t dropped = 0;
    const auto counts = l.filter->ReadCounts();
    if (!counts.ok()) Fail(std::string(counts.status().message()));
    for (const auto& count : *counts) dropped += count.packets;
    Say("{\"time_ns\":" + std::to_string(MonotonicNanos()) +
        ",\"received\":" + std::to_string(packets) + ",\"early\":" + std::to_string(dropped) + "}");
    return true;
  });
  return 0;
}

int Main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() >= 1 && words.size() <= 2 && words[0] == "time") {
    return Time(words.size() == 2 ? std::stoul(words[1]) : 100'000);
  }
  if (words.size() == 4 && words[0] == "attach" && (words[2] == "bare" || words[2] == "early")) {
    return Attach(words[1], words[2] == "early", words[3]);
  }
  Fail("usage: early_drop time [PREFIXES] | early_drop attach INTERFACE bare|early FILE");
}

}  // namespace
}  // namespace sluice::rig

int main(int argc, char** argv) { return sluice::rig::Main(argc, argv); }
