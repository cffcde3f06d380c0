// What a stage decides about a packet. Every early end names its reason; there is no silent drop.
#ifndef SLUICE_PACKET_VERDICT_H_
#define SLUICE_PACKET_VERDICT_H_

#include <cstdint>

#include "base/reason.h"

namespace sluice::packet {

class Verdict {
 public:
  enum class Kind : uint8_t {
    kContinue,  // to the next stage
    kForward,   // handed to the outbox, or about to be
    kLocal,     // consumed here (ARP, ND, echo); its frame has been freed or reused by the stage's caller
    kDrop,
    kPunt,
    kHeld,      // a neighbour's queue owns it now
  };

  static constexpr Verdict Continue() { return Verdict(Kind::kContinue, 0); }
  static constexpr Verdict Forward() { return Verdict(Kind::kForward, 0); }
  static constexpr Verdict Local() { return Verdict(Kind::kLocal, 0); }
  static constexpr Verdict Held() { return Verdict(Kind::kHeld, 0); }
  static constexpr Verdict Drop(DropReason r) {
    return Verdict(Kind::kDrop, static_cast<uint8_t>(r));
  }
  static constexpr Verdict Punt(PuntReason r) {
    return Verdict(Kind::kPunt, static_cast<uint8_t>(r));
  }

  constexpr Kind kind() const { return kind_; }
  constexpr bool is_continue() const { return kind_ == Kind::kContinue; }
  constexpr DropReason drop_reason() const { return static_cast<DropReason>(reason_); }
  constexpr PuntReason punt_reason() const { return static_cast<PuntReason>(reason_); }
  constexpr bool operator==(const Verdict&) const = default;

 private:
  constexpr Verdict(Kind kind, uint8_t reason) : kind_(kind), reason_(reason) {}

  Kind kind_;
  uint8_t reason_;
};

}  // namespace sluice::packet

#endif  // SLUICE_PACKET_VERDICT_H_
