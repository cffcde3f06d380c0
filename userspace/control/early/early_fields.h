// Where the bytes in nf_tables' registers come from, and the header fields that they make up.
//
// Thread: any; values.
#ifndef SLUICE_CONTROL_EARLY_EARLY_FIELDS_H_
#define SLUICE_CONTROL_EARLY_EARLY_FIELDS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace sluice::control {

enum class EarlyField : uint8_t {
  kEtherType,  // two bytes
  kProtocol,   // IPv4's protocol, IPv6's next header
  kFragment,   // IPv4's flags and offset, two bytes
  kSource4,
  kDestination4,
  kSource6,
  kDestination6,
  kSourcePort,
  kDestinationPort,
  kByte0,  // behind the IP header
  kByte1,
  kTcpFlags,
};

struct EarlyByte {
  enum class Kind : uint8_t { kUnknown, kConstant, kEtherType, kProtocol, kIp4, kIp6, kL4 };
  Kind kind = Kind::kUnknown;
  uint8_t offset = 0;  // within the header; the value of a constant
  uint8_t mask = 0xff;
  uint8_t flip = 0;  // value = (byte & mask) ^ flip
  bool operator==(const EarlyByte&) const = default;
};

// The sixteen registers of four bytes.
using EarlyRegisters = std::array<EarlyByte, 64>;

// A field at the start of `bytes`: the whole of it, or its leading bytes (`bytes` is then shorter
// than the field; only of addresses).
struct EarlyPiece {
  EarlyField field = EarlyField::kEtherType;
  size_t size = 0;   // of the field
  size_t known = 0;  // leading bytes that are there
};

inline std::optional<EarlyPiece> FirstField(std::span<const EarlyByte> bytes) {
  if (bytes.empty()) return {};
  const EarlyByte& first = bytes[0];
  // How many bytes follow each other as in the header.
  size_t run = 1;
  while (run < bytes.size() && bytes[run].kind == first.kind &&
         bytes[run].offset == first.offset + run) {
    ++run;
  }
  const auto whole = [&](EarlyField field, size_t size) -> std::optional<EarlyPiece> {
    if (run < size) return {};
    return EarlyPiece{field, size, size};
  };
  const auto leading = [&](EarlyField field, size_t size) -> std::optional<EarlyPiece> {
    if (run < size && run < bytes.size()) return {};
    return EarlyPiece{field, size, run < size ? run : size};
  };
  switch (first.kind) {
    case EarlyByte::Kind::kEtherType:
      return first.offset == 0 ? whole(EarlyField::kEtherType, 2) : std::nullopt;
    case EarlyByte::Kind::kProtocol:
      return whole(EarlyField::kProtocol, 1);
    case EarlyByte::Kind::kIp4:
      if (first.offset == 6) return whole(EarlyField::kFragment, 2);
      if (first.offset == 9) return whole(EarlyField::kProtocol, 1);
      if (first.offset == 12) return leading(EarlyField::kSource4, 4);
      if (first.offset == 16) return leading(EarlyField::kDestination4, 4);
      return {};
    case EarlyByte::Kind::kIp6:
      if (first.offset == 6) return whole(EarlyField::kProtocol, 1);
      if (first.offset == 8) return leading(EarlyField::kSource6, 16);
      if (first.offset == 24) return leading(EarlyField::kDestination6, 16);
      return {};
    case EarlyByte::Kind::kL4:
      if (first.offset == 0 && run >= 2) return EarlyPiece{EarlyField::kSourcePort, 2, 2};
      if (first.offset == 2) return whole(EarlyField::kDestinationPort, 2);
      if (first.offset == 0) return EarlyPiece{EarlyField::kByte0, 1, 1};
      if (first.offset == 1) return EarlyPiece{EarlyField::kByte1, 1, 1};
      if (first.offset == 13) return EarlyPiece{EarlyField::kTcpFlags, 1, 1};
      return {};
    default:
      return {};
  }
}

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_EARLY_EARLY_FIELDS_H_
