// What an EarlyProgram does with a frame, said as plainly as possible: rule by rule, condition by
// condition, linear in everything. For comparison with bpf/include/early_filter.h.
//
// Limits are simplified: time stands still, so that a bucket holds depth / cost packets for good.
#ifndef SLUICE_TESTS_SUPPORT_EARLY_ORACLE_H_
#define SLUICE_TESTS_SUPPORT_EARLY_ORACLE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/byte_order.h"
#include "base/rng.h"
#include "support/packet_builder.h"
#include "tables/early_program.h"

namespace sluice::test {

// What of a frame is judged, once its headers were found to be sound.
struct EarlyFacts {
  uint8_t family = tables::kEarlyOther;
  bool judged = true;  // by rules at all
  Ipv4 source4, destination4;
  Ipv6 source6, destination6;
  uint8_t protocol = 0;
  uint16_t fragment = 0;
  bool checksum_right = true;
  Bytes l4_ingress;     // with Ethernet's padding; empty: nothing there
  Bytes l4_prerouting;  // as far as the IP header says
  uint64_t ingress_bytes = 0;
  uint64_t prerouting_bytes = 0;
};

// Of a frame that the classifier gives to a worker and whose IP header is sound.
inline EarlyFacts ReadEarlyFacts(const Bytes& frame) {
  EarlyFacts f;
  const uint8_t* ip = frame.data() + 14;
  const uint16_t type = LoadBe16(frame.data() + 12);
  f.ingress_bytes = f.prerouting_bytes = frame.size() - 14;
  if (type == 0x0800) {
    f.family = tables::kEarlyIpv4;
    const size_t header = size_t{ip[0] & 15u} * 4;
    f.source4 = Ipv4::FromWire(ip + 12);
    f.destination4 = Ipv4::FromWire(ip + 16);
    f.protocol = ip[9];
    f.fragment = LoadBe16(ip + 6);
    f.prerouting_bytes = LoadBe16(ip + 2);
    uint32_t sum = 0;
    for (size_t i = 0; i < header; i += 2) sum += LoadBe16(ip + i);
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    f.checksum_right = sum == 0xffff;
    // Of later fragments too, as the kernel's nft_payload_fast_eval has it.
    f.l4_ingress.assign(ip + header, frame.data() + frame.size());
    f.l4_prerouting.assign(ip + header, ip + f.prerouting_bytes);
  } else if (type == 0x86dd) {
    f.family = tables::kEarlyIpv6;
    f.source6 = Ipv6::FromWire(ip + 8);
    f.destination6 = Ipv6::FromWire(ip + 24);
    f.protocol = ip[6];
    f.prerouting_bytes = 40u + LoadBe16(ip + 4);
    for (const int extension : {0, 43, 44, 51, 60}) f.judged &= f.protocol != extension;
    if (f.judged) {
      f.l4_ingress.assign(ip + 40, frame.data() + frame.size());
      f.l4_prerouting.assign(ip + 40, ip + f.prerouting_bytes);
    }
  }
  return f;
}

class EarlyOracle {
 public:
  explicit EarlyOracle(const tables::EarlyProgram& program)
      : program_(program), packets_(program.rules.size()), bytes_(program.rules.size()) {}

  // The rule that drops the packet, if any does.
  std::optional<size_t> Judge(const EarlyFacts& f) {
    if (!f.judged) return {};
    std::optional<uint16_t> over;  // a chain that has ended
    for (size_t i = 0; i < program_.rules.size(); ++i) {
      const tables::EarlyRule& rule = program_.rules[i];
      if (over == rule.chain || !Matches(rule, f)) continue;
      if (rule.counter == tables::EarlyCounter::kBeforeLimit) Count(i, f);
      if (rule.limit && Take(i, *rule.limit, f) == rule.limit->over) continue;
      if (rule.counter != tables::EarlyCounter::kBeforeLimit) Count(i, f);
      if (rule.verdict == tables::EarlyVerdict::kDrop) return i;
      if (rule.verdict == tables::EarlyVerdict::kEndOfChain) over = rule.chain;
    }
    return {};
  }
  const std::vector<uint64_t>& packets() const { return packets_; }
  const std::vector<uint64_t>& bytes() const { return bytes_; }

 private:
  template <typename T>
  static bool In(const tables::EarlyRanges<T>& ranges, const T& value) {
    for (const auto& range : ranges) {
      if (range.first <= value && value <= range.last) return true;
    }
    return false;
  }
  static bool ByteIs(const std::optional<tables::EarlyBytes>& condition, const Bytes& l4,
                     size_t at) {
    return !condition || (at < l4.size() && condition->test(l4[at]));
  }

  bool Matches(const tables::EarlyRule& rule, const EarlyFacts& f) const {
    if ((rule.families & f.family) == 0) return false;
    const bool is_ip = f.family != tables::kEarlyOther;
    const bool is_v4 = f.family == tables::kEarlyIpv4;
    if (!rule.ingress && !f.checksum_right) return false;
    if (rule.whole_packets && is_v4 && (f.fragment & 0x3fff) != 0) return false;
    for (size_t d = 0; d < 2; ++d) {
      for (const auto& term : rule.addresses4[d]) {
        if (In(*program_.sets4[term.set], d == 0 ? f.source4 : f.destination4) == term.inverted) {
          return false;
        }
      }
      for (const auto& term : rule.addresses6[d]) {
        if (In(*program_.sets6[term.set], d == 0 ? f.source6 : f.destination6) == term.inverted) {
          return false;
        }
      }
      const Bytes& l4 = rule.ingress ? f.l4_ingress : f.l4_prerouting;
      for (const auto& term : rule.ports[d]) {
        if (l4.size() < d * 2 + 2) return false;
        if (In(program_.port_sets[term.set], LoadBe16(l4.data() + d * 2)) == term.inverted) {
          return false;
        }
      }
    }
    const Bytes& l4 = rule.ingress ? f.l4_ingress : f.l4_prerouting;
    if (rule.protocol && (!is_ip || !rule.protocol->test(f.protocol))) return false;
    if (rule.fragment) {
      const size_t form =
          static_cast<size_t>(f.fragment >> 13) * 2 + ((f.fragment & 0x1fff) != 0 ? 1 : 0);
      if (!is_v4 || !rule.fragment->test(form)) return false;
    }
    return ByteIs(rule.byte0, l4, 0) && ByteIs(rule.byte1, l4, 1) && ByteIs(rule.tcp_flags, l4, 13);
  }

  void Count(size_t rule, const EarlyFacts& f) {
    ++packets_[rule];
    bytes_[rule] += program_.rules[rule].ingress ? f.ingress_bytes : f.prerouting_bytes;
  }

  bool Take(size_t rule, const tables::EarlyLimit& limit, const EarlyFacts& f) {
    std::pair<Ipv6, Ipv4> source;
    if (limit.per_source) source = {f.source6, f.source4};
    uint64_t& used = used_[{rule, source}];
    if (used == limit.depth_ns / limit.cost_ns) return false;
    ++used;
    return true;
  }

  const tables::EarlyProgram& program_;
  std::vector<uint64_t> packets_;
  std::vector<uint64_t> bytes_;
  std::map<std::pair<size_t, std::pair<Ipv6, Ipv4>>, uint64_t> used_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_EARLY_ORACLE_H_
