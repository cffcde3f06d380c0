// The attributes of one netlink message, by type. Internal to control/netlink.
#ifndef SLUICE_CONTROL_NETLINK_ATTRIBUTES_H_
#define SLUICE_CONTROL_NETLINK_ATTRIBUTES_H_

#include <linux/netlink.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "base/address.h"

namespace sluice::control {

// The fixed header of a message's body, or null when the message is too short for it.
template <class Body>
const Body* BodyOf(const nlmsghdr& message) {
  if (message.nlmsg_len < NLMSG_LENGTH(sizeof(Body))) return nullptr;
  return reinterpret_cast<const Body*>(reinterpret_cast<const uint8_t*>(&message) + NLMSG_HDRLEN);
}

inline size_t LengthOf(const nlattr* a) { return a->nla_len - sizeof(nlattr); }
inline const uint8_t* DataOf(const nlattr* a) { return reinterpret_cast<const uint8_t*>(a + 1); }

// Calls visit(type, attribute) for each well-formed attribute of the span.
template <class Visit>
void ForEachAttribute(const void* data, size_t length, const Visit& visit) {
  const auto* at = static_cast<const uint8_t*>(data);
  while (length >= sizeof(nlattr)) {
    const auto* a = reinterpret_cast<const nlattr*>(at);
    if (a->nla_len < sizeof(nlattr) || a->nla_len > length) return;
    visit(static_cast<uint16_t>(a->nla_type & NLA_TYPE_MASK), a);
    const size_t step = NLA_ALIGN(a->nla_len);
    if (step >= length) return;
    at += step;
    length -= step;
  }
}

inline std::optional<IpAddress> AddressFrom(const uint8_t* data, size_t length) {
  if (length == 4) return IpAddress(Ipv4::FromWire(data));
  if (length == 16) return IpAddress(Ipv6::FromWire(data));
  return std::nullopt;
}

template <int kMax>
class Attributes {
 public:
  // Behind a fixed header of `header` bytes.
  Attributes(const nlmsghdr& message, size_t header) {
    const size_t offset = NLMSG_HDRLEN + NLMSG_ALIGN(header);
    if (message.nlmsg_len <= offset) return;
    Parse(reinterpret_cast<const uint8_t*>(&message) + offset, message.nlmsg_len - offset);
  }
  Attributes(const void* data, size_t length) { Parse(data, length); }
  explicit Attributes(const nlattr* nested) {
    if (nested != nullptr) Parse(DataOf(nested), LengthOf(nested));
  }

  const nlattr* operator[](int type) const { return table_[static_cast<size_t>(type)]; }
  bool has(int type) const { return (*this)[type] != nullptr; }
  bool has_unknown() const { return unknown_; }  // of a type beyond kMax

  template <class T>
  std::optional<T> Get(int type) const {
    const nlattr* a = (*this)[type];
    if (a == nullptr || LengthOf(a) < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, DataOf(a), sizeof value);
    return value;
  }
  uint32_t U32(int type, uint32_t otherwise = 0) const {
    return Get<uint32_t>(type).value_or(otherwise);
  }
  std::string String(int type) const {
    const nlattr* a = (*this)[type];
    if (a == nullptr) return {};
    const char* text = reinterpret_cast<const char*>(DataOf(a));
    return std::string(text, strnlen(text, LengthOf(a)));
  }
  // By its length: 4 or 16 bytes.
  std::optional<IpAddress> Address(int type) const {
    const nlattr* a = (*this)[type];
    return a == nullptr ? std::nullopt : AddressFrom(DataOf(a), LengthOf(a));
  }

 private:
  void Parse(const void* data, size_t length) {
    ForEachAttribute(data, length, [this](uint16_t type, const nlattr* a) {
      if (type <= kMax) {
        table_[type] = a;
      } else {
        unknown_ = true;
      }
    });
  }

  std::array<const nlattr*, kMax + 1> table_{};
  bool unknown_ = false;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_NETLINK_ATTRIBUTES_H_
