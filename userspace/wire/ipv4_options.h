// IPv4 options (RFC 791 section 3.1, RFC 2113): an iterator, and the check a router makes.
//
// CompileIpv4Options accepts and refuses what Linux' __ip_options_compile does for a received
// packet, and names the byte that an ICMP parameter problem would point to. It changes nothing.
// What a router would have to do per hop (record a route or a time, follow a source route, act on
// an alert) comes back as flags; the stage that asks punts such packets, so the kernel does it.
// Linux routes the packet before it looks at options: "no route" comes before "parameter problem".
//
// Bounds: at most 40 bytes, so at most 40 steps. Options of unknown kind are skipped by their
// length.
#ifndef SLUICE_WIRE_IPV4_OPTIONS_H_
#define SLUICE_WIRE_IPV4_OPTIONS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "wire/ipv4.h"

namespace sluice::wire {

inline constexpr uint8_t kIpv4OptionEnd = 0;
inline constexpr uint8_t kIpv4OptionNop = 1;
inline constexpr uint8_t kIpv4OptionRecordRoute = 7;
inline constexpr uint8_t kIpv4OptionTimestamp = 68;
inline constexpr uint8_t kIpv4OptionLooseSourceRoute = 131;
inline constexpr uint8_t kIpv4OptionCipso = 134;
inline constexpr uint8_t kIpv4OptionStrictSourceRoute = 137;
inline constexpr uint8_t kIpv4OptionRouterAlert = 148;

inline constexpr uint8_t kIpv4OptionCopiedBit = 0x80;  // goes into every fragment

struct Ipv4Option {
  uint8_t kind = 0;
  uint8_t offset = 0;              // within the options
  std::span<const uint8_t> bytes;  // all of it, kind and length included
};

// Yields the options one by one, No-Operations left out, and stops at End or at the first one that
// does not fit (then `malformed`).
class Ipv4OptionIterator {
 public:
  explicit Ipv4OptionIterator(std::span<const uint8_t> options) : options_(options) {}

  std::optional<Ipv4Option> Next() {
    while (at_ < options_.size() && options_[at_] == kIpv4OptionNop) ++at_;
    if (at_ >= options_.size() || options_[at_] == kIpv4OptionEnd) return {};
    const size_t left = options_.size() - at_;
    if (left < 2 || options_[at_ + 1] < 2 || options_[at_ + 1] > left) {
      malformed_ = true;
      return {};
    }
    const Ipv4Option option{options_[at_], static_cast<uint8_t>(at_),
                            options_.subspan(at_, options_[at_ + 1])};
    at_ += option.bytes.size();
    return option;
  }
  bool malformed() const { return malformed_; }
  size_t offset() const { return at_; }  // of the End, the malformed option, or the end of all

 private:
  std::span<const uint8_t> options_;
  size_t at_ = 0;
  bool malformed_ = false;
};

struct Ipv4OptionsResult {
  bool valid = true;
  uint8_t problem_pointer = 0;  // when not valid: offset from the start of the IPv4 header
  bool source_route = false;    // LSRR or SSRR
  bool strict = false;          // it is SSRR
  bool record_route = false;    // with room for another address
  bool timestamp = false;       // Linux would write a time or count an overflow
  bool router_alert = false;
  bool echoed = false;        // record route or timestamp: ICMP errors carry them too (icmp_send)
  bool other_action = false;  // CIPSO, or bytes after End that Linux would clear

  // Whether forwarding would change the options or look further than at the header.
  bool NeedsAction() const {
    return source_route || record_route || timestamp || router_alert || other_action;
  }
};

Ipv4OptionsResult CompileIpv4Options(std::span<const uint8_t> options);

inline Ipv4OptionsResult CompileIpv4Options(const Ipv4View& ip) {
  return CompileIpv4Options(ip.options());
}

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_IPV4_OPTIONS_H_
