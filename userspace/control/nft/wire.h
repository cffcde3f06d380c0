// Reading nf_tables' netlink attributes: numbers in network order, registers, data. Internal to
// control/nft.
//
// ExprAttributes collects what was wrong while an expression is read, and `Done` turns that into
// "no expression": a required attribute that is missing, a register that does not exist, a length
// beyond the registers, and an attribute that this program does not know, since it may change the
// meaning (kMax is the last one known, not the last one of the header compiled against).
//
// Formats: linux/netfilter/nf_tables.h. Thread: any; no state.
#ifndef SLUICE_CONTROL_NFT_WIRE_H_
#define SLUICE_CONTROL_NFT_WIRE_H_

#include <endian.h>
#include <linux/netfilter/nf_tables.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "control/netlink/attributes.h"
#include "control/nft/model.h"

namespace sluice::control::nft {

inline constexpr uint32_t kRegisterBytes = 64;  // all sixteen units

template <int kMax>
std::optional<uint32_t> Be32(const Attributes<kMax>& a, int type) {
  const auto value = a.template Get<uint32_t>(type);
  return value ? std::optional(be32toh(*value)) : std::nullopt;
}
template <int kMax>
std::optional<uint64_t> Be64(const Attributes<kMax>& a, int type) {
  const auto value = a.template Get<uint64_t>(type);
  return value ? std::optional(be64toh(*value)) : std::nullopt;
}

inline Bytes BytesOf(const nlattr* a) {
  return a == nullptr ? Bytes() : Bytes(DataOf(a), DataOf(a) + LengthOf(a));
}

// A value or a verdict (NFTA_DATA_VALUE, NFTA_DATA_VERDICT).
struct Data {
  Bytes value;
  std::optional<VerdictData> verdict;
};
// nullopt when it is neither, or longer than the registers.
std::optional<Data> ParseData(const nlattr* a);

template <int kMax>
class ExprAttributes {
 public:
  explicit ExprAttributes(const nlattr* data) : a_(data), ok_(!a_.has_unknown()) {}

  bool has(int type) const { return a_.has(type); }
  const nlattr* operator[](int type) const { return a_[type]; }
  std::string String(int type) const { return a_.String(type); }

  uint32_t U32(int type) { return Required(Be32(a_, type)); }
  uint32_t U32Or(int type, uint32_t otherwise) const { return Be32(a_, type).value_or(otherwise); }
  uint64_t U64(int type) { return Required(Be64(a_, type)); }
  uint64_t U64Or(int type, uint64_t otherwise) const { return Be64(a_, type).value_or(otherwise); }
  uint16_t U16(int type) { return be16toh(Required(a_.template Get<uint16_t>(type))); }
  uint8_t U8(int type) { return Required(a_.template Get<uint8_t>(type)); }
  // A value of one byte that is sent as four.
  uint8_t Small(int type) {
    const uint32_t value = U32(type);
    if (value > 0xff) ok_ = false;
    return static_cast<uint8_t>(value);
  }
  // Bytes within the registers.
  uint32_t Length(int type) {
    const uint32_t value = U32(type);
    if (value > kRegisterBytes) ok_ = false;
    return value;
  }
  uint8_t Register(int type) {
    const uint32_t number = U32(type);
    if (number == NFT_REG_VERDICT) return kVerdictRegister;
    if (number <= NFT_REG_4) return static_cast<uint8_t>((number - NFT_REG_1) * 4);
    if (number >= NFT_REG32_00 && number <= NFT_REG32_15) {
      return static_cast<uint8_t>(number - NFT_REG32_00);
    }
    ok_ = false;
    return kNoRegister;
  }
  uint8_t RegisterOr(int type) { return has(type) ? Register(type) : kNoRegister; }
  Bytes Value(int type) {
    std::optional<Data> data = ParseData(a_[type]);
    if (!data || data->verdict) {
      ok_ = false;
      return {};
    }
    return std::move(data->value);
  }

  void Fail() { ok_ = false; }
  // The expression, or nothing when something was wrong with its attributes.
  template <class E>
  std::optional<Expr> Done(E expr) const {
    return ok_ ? std::optional<Expr>(std::move(expr)) : std::nullopt;
  }

 private:
  template <class T>
  T Required(const std::optional<T>& value) {
    if (!value) ok_ = false;
    return value.value_or(T{});
  }

  const Attributes<kMax> a_;
  bool ok_;
};

}  // namespace sluice::control::nft

#endif  // SLUICE_CONTROL_NFT_WIRE_H_
