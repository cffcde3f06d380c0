// What the early filter runs in XDP, in canonical form: ordered rules over a few header fields, and
// the sets that they refer to. Compiled from the kernel's ruleset by control/early, written into
// BPF maps by io/af_xdp/early_maps.h, and evaluated by bpf/include/early_filter.h.
//
// Meaning: rules are taken in order. A rule matches when each of its conditions does; a condition
// on something that the packet does not have (a port behind its end) does not, inverted or not. A
// rule that matches counts, asks its limit, and then drops the packet, ends its chain (later rules
// with the same `chain` do not apply), or does nothing more.
//
// Which packets XDP judges at all, by rule: those that would go to a worker (not: what it leaves to
// the kernel at once, such as VLANs, groups and other hosts' frames, which the kernel's own rules
// judge; not: what a DHCP server sends to this machine, which workers give to the kernel before any
// rule), see JudgedEarly. A packet that a worker sees and that was judged has passed the rules of
// the program: the worker must leave out the rules named by `key` (for the rule's families), and
// apply all the others. For a packet that was not judged it must apply all of them.
//
// How to change both sides so that no packet is judged by a mixture and none escapes: publish the
// new ruleset to the workers with no rule left out, install the new program, wait until the frames
// that XDP had let through before are gone (one turn of each worker with empty rings), and publish
// the ruleset again with the new program's rules left out. In between a rule may count twice.
//
// A value; immutable once published. Any thread.
#ifndef SLUICE_TABLES_EARLY_PROGRAM_H_
#define SLUICE_TABLES_EARLY_PROGRAM_H_

#include <array>
#include <bitset>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/address.h"

namespace sluice::tables {

// Disjoint, ascending, and never two that touch.
template <typename T>
struct EarlyRange {
  T first{};
  T last{};
  auto operator<=>(const EarlyRange&) const = default;
};
template <typename T>
using EarlyRanges = std::vector<EarlyRange<T>>;

// Two programs may share a set: what is the same pointer need not be compared.
using EarlySet4 = std::shared_ptr<const EarlyRanges<Ipv4>>;
using EarlySet6 = std::shared_ptr<const EarlyRanges<Ipv6>>;

// A rule by its place in the kernel's ruleset; handle 0 is the policy of the chain.
struct EarlyRuleKey {
  uint8_t family = 0;  // NFPROTO_*
  std::string table;
  std::string chain;
  uint64_t handle = 0;
  auto operator<=>(const EarlyRuleKey&) const = default;
};

enum EarlyFamily : uint8_t { kEarlyOther = 1, kEarlyIpv4 = 2, kEarlyIpv6 = 4, kEarlyAll = 7 };
enum class EarlyVerdict : uint8_t { kContinue, kDrop, kEndOfChain };
enum class EarlyCounter : uint8_t { kNone, kBeforeLimit, kLast };

struct EarlyTerm {
  uint16_t set = 0;  // index into the program's sets of that kind
  bool inverted = false;
  bool operator==(const EarlyTerm&) const = default;
};

// `limit rate [over] N/unit`, of the rule or of each source address (a meter).
struct EarlyLimit {
  uint64_t cost_ns = 0;   // of one packet
  uint64_t depth_ns = 0;  // of a full bucket
  bool over = false;      // matches what exceeds the rate
  bool per_source = false;
  bool operator==(const EarlyLimit&) const = default;
};

// Dimensions with sets of addresses or ports.
enum EarlyDimension : uint8_t { kEarlySource, kEarlyDestination };
using EarlyBytes = std::bitset<256>;

struct EarlyRule {
  EarlyRuleKey key;
  uint16_t chain = 0;    // the same number for the rules of one chain, in order
  bool ingress = false;  // of an ingress chain: before IP, sees Ethernet's padding
  uint8_t families = kEarlyAll;
  // Not for fragments, which may be reassembled before: user space judges those.
  bool whole_packets = false;
  // All of these must hold; those of addresses only for their family.
  std::array<std::vector<EarlyTerm>, 2> addresses4;
  std::array<std::vector<EarlyTerm>, 2> addresses6;
  std::array<std::vector<EarlyTerm>, 2> ports;  // the first two pairs of bytes behind the IP header
  std::optional<EarlyBytes> protocol;           // IPv4's protocol, IPv6's next header
  std::optional<EarlyBytes> byte0;              // behind the IP header: ICMP type
  std::optional<EarlyBytes> byte1;              // ICMP code
  std::optional<EarlyBytes> tcp_flags;          // byte 13 behind the IP header
  // IPv4's fragment field, by reserved bit (8), DF (4), MF (2) and "offset is not 0" (1).
  std::optional<std::bitset<16>> fragment;
  EarlyCounter counter = EarlyCounter::kNone;
  std::optional<EarlyLimit> limit;
  EarlyVerdict verdict = EarlyVerdict::kContinue;
  bool operator==(const EarlyRule&) const = default;
};

struct EarlyProgram {
  // More rules, or more classes of addresses, stay in user space (see control/early).
  static constexpr size_t kMaxRules = 64;

  std::vector<EarlyRule> rules;
  std::vector<EarlySet4> sets4;
  std::vector<EarlySet6> sets6;
  std::vector<EarlyRanges<uint16_t>> port_sets;
  // No rule that sees IPv4 packets before routing is left to user space, so a packet with
  // impossible addresses can be dropped without a rule missing it.
  bool martians = false;
  // Why rules from there on are not in XDP, a sentence each: for `sluice show rules`.
  std::vector<std::string> remarks;
};

// Whether XDP has applied the rules of ingress chains, and of prerouting chains, to a packet that
// reached a worker. What it leaves out is fixed by form, so both sides agree:
// IPv6 with extension headers; and fragments for rules with `whole_packets`.
struct EarlyPacketForm {
  bool ipv6_extensions = false;  // the fixed header is followed by one of 0, 43, 44, 51, 60
  bool ipv4_fragment = false;    // as it arrived, before reassembly
};
constexpr bool JudgedEarly(const EarlyPacketForm& form, bool rule_whole_packets) {
  return !form.ipv6_extensions && !(form.ipv4_fragment && rule_whole_packets);
}

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_EARLY_PROGRAM_H_
