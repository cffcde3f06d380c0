// Writes nfnetlink messages, attribute by attribute, into a buffer. The message's length is filled in
// when its writer ends.
//
// Thread: any; nothing is kept. The buffer must not be written to by others meanwhile.
#ifndef SLUICE_CONTROL_NETLINK_NFNETLINK_MESSAGE_H_
#define SLUICE_CONTROL_NETLINK_NFNETLINK_MESSAGE_H_

#include <arpa/inet.h>
#include <endian.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace sluice::control {

class NfnetlinkMessage {
 public:
  // `type`: NFNL_SUBSYS_* << 8 | message; `resource`: of batches.
  NfnetlinkMessage(std::vector<uint8_t>& out, uint16_t type, uint16_t flags, uint32_t sequence,
                   uint8_t family, uint16_t resource = 0)
      : out_(out), start_(out.size()) {
    nlmsghdr header{};
    header.nlmsg_type = type;
    header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
    header.nlmsg_seq = sequence;
    nfgenmsg body{};
    body.nfgen_family = family;
    body.version = NFNETLINK_V0;
    body.res_id = htons(resource);
    Raw(&header, sizeof header);
    Raw(&body, sizeof body);
  }
  ~NfnetlinkMessage() {
    const auto length = static_cast<uint32_t>(out_.size() - start_);
    std::memcpy(out_.data() + start_, &length, sizeof length);
  }
  NfnetlinkMessage(const NfnetlinkMessage&) = delete;
  NfnetlinkMessage& operator=(const NfnetlinkMessage&) = delete;

  void Put(uint16_t type, const void* data, size_t size) {
    const nlattr a{static_cast<uint16_t>(sizeof(nlattr) + size), type};
    Raw(&a, sizeof a);
    Raw(data, size);
    out_.resize(start_ + NLMSG_ALIGN(out_.size() - start_));
  }
  void Put8(uint16_t type, uint8_t value) { Put(type, &value, sizeof value); }
  void Put16(uint16_t type, uint16_t value) {
    const uint16_t big = htons(value);
    Put(type, &big, sizeof big);
  }
  void Put32(uint16_t type, uint32_t value) {
    const uint32_t big = htonl(value);
    Put(type, &big, sizeof big);
  }
  void Put64(uint16_t type, uint64_t value) {
    const uint64_t big = htobe64(value);
    Put(type, &big, sizeof big);
  }
  void PutString(uint16_t type, std::string_view text) {
    std::vector<char> bytes(text.begin(), text.end());
    bytes.push_back('\0');
    Put(type, bytes.data(), bytes.size());
  }
  template <class F>
  void Nest(uint16_t type, const F& fill) {
    const size_t at = out_.size();
    const nlattr a{0, static_cast<uint16_t>(type | NLA_F_NESTED)};
    Raw(&a, sizeof a);
    fill();
    const auto length = static_cast<uint16_t>(out_.size() - at);
    std::memcpy(out_.data() + at, &length, sizeof length);
  }

 private:
  void Raw(const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    out_.insert(out_.end(), bytes, bytes + size);
  }

  std::vector<uint8_t>& out_;
  const size_t start_;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_NETLINK_NFNETLINK_MESSAGE_H_
