// The conditions of an early rule, collected field by field: comparisons become sets of ports and
// addresses, tables of byte values, and families. What has no such form is said by Stop.
//
// Thread: control. A field of one or two bytes is tried with all its values.
#ifndef SLUICE_CONTROL_EARLY_EARLY_CONDITIONS_H_
#define SLUICE_CONTROL_EARLY_EARLY_CONDITIONS_H_

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "control/early/early_fields.h"
#include "control/nft/model.h"
#include "tables/early_program.h"

namespace sluice::control {

class EarlyConditions {
 public:
  // kNever: the rule matches nothing. kStop: remark() says why XDP cannot do it.
  enum class Step : uint8_t { kGo, kNever, kStop };
  // Compares a value of a field, as big-endian bytes, with what a rule says.
  using Predicate = std::function<bool(std::span<const uint8_t>)>;

  // New sets go into `program`.
  EarlyConditions(uint8_t families, tables::EarlyProgram& program)
      : families_(families), program_(program) {}

 protected:
  Step Stop(std::string why) {
    remark_ = std::move(why);
    return Step::kStop;
  }
  Step EqualFields(std::span<const EarlyByte> bytes, const nft::Bytes& data);
  // One whole field of up to two bytes, whatever the comparison.
  Step Small(EarlyField field, std::span<const EarlyByte> bytes, const Predicate& matches);
  Step SmallBytes(std::optional<tables::EarlyBytes>& condition, std::span<const EarlyByte> bytes,
                  const Predicate& matches);
  Step Ports(tables::EarlyDimension d, std::span<const EarlyByte> bytes, const Predicate& matches);
  Step Fragment(std::span<const EarlyByte> bytes, const Predicate& matches);
  Step EtherType(std::span<const EarlyByte> bytes, const Predicate& matches);
  // The leading bytes of an address equal `data` under their masks.
  Step EqualAddress(const EarlyPiece& piece, std::span<const EarlyByte> bytes, const uint8_t* data);
  // A whole address, or its leading bytes, ordered.
  Step OrderedAddress(const EarlyPiece& piece, std::span<const EarlyByte> bytes,
                      const nft::Bytes& from, const nft::Bytes& to, bool inverted);
  Step AddressRange(EarlyField field, const std::array<uint8_t, 16>& from,
                    const std::array<uint8_t, 16>& to, bool inverted);
  Step AddTerm4(EarlyField field, tables::EarlySet4 set, bool inverted);
  Step AddTerm6(EarlyField field, tables::EarlySet6 set, bool inverted);
  template <typename Set>
  Step AddTerm(std::vector<Set>& sets, std::vector<tables::EarlyTerm>& terms, Set set,
               bool inverted);
  static bool Unmasked(std::span<const EarlyByte> bytes);
  static bool IsAddress(EarlyField field);

  uint8_t families_;
  tables::EarlyRule rule_;
  std::string remark_;

 private:
  tables::EarlyProgram& program_;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_EARLY_EARLY_CONDITIONS_H_
