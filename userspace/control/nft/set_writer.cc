#include "control/nft/set_writer.h"

#include <linux/netfilter/nf_tables.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>
#include <variant>

#include "control/netlink/nfnetlink_message.h"

namespace sluice::control::nft {
namespace {

constexpr int kSendBuffer = 4 << 20;

void PutLimit(NfnetlinkMessage& m, const LimitExpr& e) {
  m.Put64(NFTA_LIMIT_RATE, e.rate);
  m.Put64(NFTA_LIMIT_UNIT, e.unit_seconds);
  m.Put32(NFTA_LIMIT_BURST, e.burst);
  m.Put32(NFTA_LIMIT_TYPE, e.bytes ? NFT_LIMIT_PKT_BYTES : NFT_LIMIT_PKTS);
  m.Put32(NFTA_LIMIT_FLAGS, e.inverted ? NFT_LIMIT_F_INV : 0);
}

// Of the kinds that elements may have; others are left out.
void PutExpression(NfnetlinkMessage& m, const Expr& expr) {
  const auto put = [&](const char* name, const auto& fill) {
    m.Nest(NFTA_LIST_ELEM, [&] {
      m.PutString(NFTA_EXPR_NAME, name);
      m.Nest(NFTA_EXPR_DATA, fill);
    });
  };
  if (const auto* limit = std::get_if<LimitExpr>(&expr)) {
    put("limit", [&] { PutLimit(m, *limit); });
  } else if (std::holds_alternative<CounterExpr>(expr)) {
    put("counter", [&] {
      m.Put64(NFTA_COUNTER_BYTES, 0);
      m.Put64(NFTA_COUNTER_PACKETS, 0);
    });
  } else if (const auto* quota = std::get_if<QuotaExpr>(&expr)) {
    put("quota", [&] {
      m.Put64(NFTA_QUOTA_BYTES, quota->bytes);
      m.Put32(NFTA_QUOTA_FLAGS, quota->inverted ? NFT_QUOTA_F_INV : 0);
    });
  } else if (const auto* connections = std::get_if<ConnlimitExpr>(&expr)) {
    put("connlimit", [&] {
      m.Put32(NFTA_CONNLIMIT_COUNT, connections->count);
      m.Put32(NFTA_CONNLIMIT_FLAGS, connections->inverted ? NFT_CONNLIMIT_F_INV : 0);
    });
  } else if (std::holds_alternative<LastExpr>(expr)) {
    put("last", [] {});
  }
}

void PutElement(NfnetlinkMessage& m, const ElementChange& change) {
  m.Nest(NFTA_SET_ELEM_KEY,
         [&] { m.Put(NFTA_DATA_VALUE, change.key.data(), change.key.size()); });
  if (change.removed) return;
  if (!change.data.empty()) {
    m.Nest(NFTA_SET_ELEM_DATA,
           [&] { m.Put(NFTA_DATA_VALUE, change.data.data(), change.data.size()); });
  }
  if (change.timeout_ms != 0) {
    m.Put64(NFTA_SET_ELEM_TIMEOUT, change.timeout_ms);
    m.Put64(NFTA_SET_ELEM_EXPIRATION, change.timeout_ms);
  }
  if (change.exprs.empty()) return;
  m.Nest(NFTA_SET_ELEM_EXPRESSIONS, [&] {
    for (const Expr& expr : change.exprs) PutExpression(m, expr);
  });
}

}  // namespace

absl::StatusOr<SetWriter> SetWriter::Open() {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
  if (fd < 0) return absl::ErrnoToStatus(errno, "a socket for the elements of sets");
  // Larger than wmem_max with CAP_NET_ADMIN; a batch must fit.
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kSendBuffer, sizeof kSendBuffer);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kSendBuffer, sizeof kSendBuffer);
  return SetWriter(fd);
}

SetWriter::SetWriter(SetWriter&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
SetWriter& SetWriter::operator=(SetWriter&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}
SetWriter::~SetWriter() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<std::vector<size_t>> SetWriter::Try(std::span<const ElementChange* const> changes,
                                                   uint32_t generation, bool& stale) {
  constexpr uint32_t kBegin = 1;
  constexpr uint32_t kFirst = 2;
  std::vector<uint8_t> batch;
  {
    NfnetlinkMessage m(batch, NFNL_MSG_BATCH_BEGIN, 0, kBegin, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
    m.Put32(NFNL_BATCH_GENID, generation);
  }
  for (size_t i = 0; i < changes.size(); ++i) {
    const ElementChange& change = *changes[i];
    const int kind = change.removed ? NFT_MSG_DELSETELEM : NFT_MSG_NEWSETELEM;
    NfnetlinkMessage m(batch, static_cast<uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | kind),
                       change.removed ? 0 : NLM_F_CREATE, static_cast<uint32_t>(kFirst + i),
                       static_cast<uint8_t>(change.family));
    m.PutString(NFTA_SET_ELEM_LIST_TABLE, change.table);
    m.PutString(NFTA_SET_ELEM_LIST_SET, change.set);
    m.Nest(NFTA_SET_ELEM_LIST_ELEMENTS,
           [&] { m.Nest(NFTA_LIST_ELEM, [&] { PutElement(m, change); }); });
  }
  {
    const NfnetlinkMessage end(batch, NFNL_MSG_BATCH_END, 0,
                               static_cast<uint32_t>(kFirst + changes.size()), AF_UNSPEC,
                               NFNL_SUBSYS_NFTABLES);
  }
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (sendto(fd_, batch.data(), batch.size(), 0, reinterpret_cast<sockaddr*>(&kernel),
             sizeof kernel) < 0) {
    return absl::ErrnoToStatus(errno, "elements of sets");
  }
  // Only errors are answered, and the answers are there already.
  std::vector<size_t> refused;
  alignas(nlmsghdr) std::array<uint8_t, 65536> buffer;
  for (;;) {
    const ssize_t got = recv(fd_, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < 0) break;
    auto left = static_cast<uint32_t>(got);
    for (auto* h = reinterpret_cast<const nlmsghdr*>(buffer.data()); NLMSG_OK(h, left);
         h = NLMSG_NEXT(h, left)) {
      if (h->nlmsg_type != NLMSG_ERROR) continue;
      const auto* const error = static_cast<const nlmsgerr*>(NLMSG_DATA(h));
      if (error->error == -ERESTART) {
        stale = true;
      } else if (error->error != 0 && h->nlmsg_seq >= kFirst &&
                 h->nlmsg_seq < kFirst + changes.size()) {
        refused.push_back(h->nlmsg_seq - kFirst);
      } else if (error->error != 0) {
        return absl::ErrnoToStatus(-error->error, "elements of sets");
      }
    }
  }
  return refused;
}

absl::StatusOr<SetWriter::Result> SetWriter::Write(std::span<const ElementChange> changes,
                                                   uint32_t generation) {
  std::vector<const ElementChange*> left;
  for (const ElementChange& change : changes) left.push_back(&change);
  Result result;
  // One that the kernel refuses undoes all: without those once more, if the rest still may.
  for (int attempt = 0; attempt < 3 && !left.empty(); ++attempt) {
    auto refused = Try(left, generation, result.stale);
    if (!refused.ok()) return refused.status();
    if (result.stale) return result;
    if (refused->empty()) {
      result.written = left.size();
      return result;
    }
    std::sort(refused->begin(), refused->end());
    refused->erase(std::unique(refused->begin(), refused->end()), refused->end());
    for (auto at = refused->rbegin(); at != refused->rend(); ++at) {
      const auto element = left.begin() + static_cast<std::ptrdiff_t>(*at);
      if (!(*element)->removed) ++result.refused;  // what was to go has gone by itself
      left.erase(element);
    }
  }
  result.refused += left.size();
  return result;
}

}  // namespace sluice::control::nft
