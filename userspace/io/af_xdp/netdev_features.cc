#include "io/af_xdp/netdev_features.h"

#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

namespace sluice::io::af_xdp {
namespace {

// linux/netdev.h, which Debian 12 lacks.
constexpr char kFamily[] = "netdev";
constexpr uint8_t kDevGet = 1;
constexpr uint16_t kDevIfindex = 1;
constexpr uint16_t kDevXdpFeatures = 3;

constexpr size_t kHeaders = NLMSG_HDRLEN + GENL_HDRLEN;

// One request with one attribute, and its one answer.
class Conversation {
 public:
  Conversation() : fd_(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC)) {
    // The kernel answers within the call that asks; this is for the case that it does not.
    const timeval patience{.tv_sec = 1, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~Conversation() {
    if (fd_ >= 0) close(fd_);
  }
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

  // False when the answer is an error.
  bool Ask(uint16_t family, uint8_t command, uint16_t attribute, const void* value, size_t size) {
    std::vector<uint8_t> request(kHeaders + NLA_HDRLEN + NLA_ALIGN(size));
    const nlmsghdr header{.nlmsg_len = static_cast<uint32_t>(request.size()),
                          .nlmsg_type = family,
                          .nlmsg_flags = NLM_F_REQUEST,
                          .nlmsg_seq = ++sequence_,
                          .nlmsg_pid = 0};
    const genlmsghdr generic{.cmd = command, .version = 1, .reserved = 0};
    const nlattr described{.nla_len = static_cast<uint16_t>(NLA_HDRLEN + size),
                           .nla_type = attribute};
    std::memcpy(request.data(), &header, sizeof header);
    std::memcpy(request.data() + NLMSG_HDRLEN, &generic, sizeof generic);
    std::memcpy(request.data() + kHeaders, &described, sizeof described);
    std::memcpy(request.data() + kHeaders + NLA_HDRLEN, value, size);
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    if (sendto(fd_, request.data(), request.size(), 0, reinterpret_cast<sockaddr*>(&kernel),
               sizeof kernel) != static_cast<ssize_t>(request.size())) {
      return false;
    }
    answer_.resize(16384);
    const ssize_t n = recv(fd_, answer_.data(), answer_.size(), 0);
    answer_.resize(static_cast<size_t>(std::max<ssize_t>(n, 0)));
    nlmsghdr answered;
    if (answer_.size() < kHeaders) return false;
    std::memcpy(&answered, answer_.data(), sizeof answered);
    if (answered.nlmsg_seq != sequence_ || answered.nlmsg_type != family) return false;
    answer_.resize(std::min<size_t>(answer_.size(), answered.nlmsg_len));
    return true;
  }

  // An attribute of the answer; empty when it is not there.
  std::span<const uint8_t> Find(uint16_t attribute) const {
    for (size_t at = kHeaders; at + NLA_HDRLEN <= answer_.size();) {
      nlattr found;
      std::memcpy(&found, answer_.data() + at, sizeof found);
      if (found.nla_len < NLA_HDRLEN || at + found.nla_len > answer_.size()) break;
      if ((found.nla_type & NLA_TYPE_MASK) == attribute) {
        return std::span(answer_).subspan(at + NLA_HDRLEN, found.nla_len - size_t{NLA_HDRLEN});
      }
      at += NLA_ALIGN(found.nla_len);
    }
    return {};
  }

 private:
  const int fd_;
  uint32_t sequence_ = 0;
  std::vector<uint8_t> answer_;
};

}  // namespace

std::optional<uint64_t> ReadXdpFeatures(IfIndex index) {
  Conversation kernel;
  if (!kernel.Ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, kFamily,
                  sizeof kFamily)) {
    return {};
  }
  uint16_t family = 0;
  if (const auto id = kernel.Find(CTRL_ATTR_FAMILY_ID); id.size() >= sizeof family) {
    std::memcpy(&family, id.data(), sizeof family);
  }
  if (family == 0 || !kernel.Ask(family, kDevGet, kDevIfindex, &index.value, sizeof index.value)) {
    return {};
  }
  uint64_t features = 0;
  const auto told = kernel.Find(kDevXdpFeatures);
  if (told.size() < sizeof features) return {};
  std::memcpy(&features, told.data(), sizeof features);
  return features;
}

}  // namespace sluice::io::af_xdp
