#include "control/nft/ruleset_reader.h"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "control/netlink/messages.h"
#include "control/netlink/nfnetlink_message.h"
#include "control/nft/messages.h"

namespace sluice::control::nft {
namespace {

constexpr int kMaxAttempts = 100;  // of Read: a ruleset that changes faster than it is read
constexpr int kMaxTableAttempts = 3;
constexpr int kMaxRepeats = 8;  // readings begun anew for elements that came twice
constexpr size_t kDatagramsAtOnce = 64;  // for Read

void AppendString(std::vector<uint8_t>& body, uint16_t type, const std::string& text) {
  const nlattr header{static_cast<uint16_t>(sizeof(nlattr) + text.size() + 1), type};
  const auto* bytes = reinterpret_cast<const uint8_t*>(&header);
  body.insert(body.end(), bytes, bytes + sizeof header);
  body.insert(body.end(), text.begin(), text.end());
  body.push_back(0);
  body.resize(NLMSG_ALIGN(body.size()));
}

std::vector<uint8_t> Body(uint8_t family) {
  const nfgenmsg header{family, NFNETLINK_V0, 0};
  const auto* bytes = reinterpret_cast<const uint8_t*>(&header);
  return std::vector<uint8_t>(bytes, bytes + sizeof header);
}

bool MeansNoNfTables(int error) {
  // EINVAL: nfnetlink has no such subsystem and no module for it.
  return error == EINVAL || error == EOPNOTSUPP || error == EPROTONOSUPPORT;
}

}  // namespace

absl::StatusOr<RulesetReader> RulesetReader::Open() {
  NetlinkOptions options;
  options.protocol = NETLINK_NETFILTER;
  options.strict_check = false;
  options.receive_buffer = 1 << 20;
  absl::StatusOr<NetlinkSocket> socket = NetlinkSocket::Open(options);
  if (!socket.ok()) return socket.status();
  return RulesetReader(*std::move(socket));
}

void RulesetReader::Start(WantsElements wants_elements) {
  wants_elements_ = std::move(wants_elements);
  tables_only_ = false;
  attempts_ = 0;
  repeats_ = 0;
  Again();
}

void RulesetReader::Again() {
  // What is left of an answer that was given up: the kernel takes one dump at a time.
  while (asked_ && !answered_) {
    const auto read = socket_.Read(kDatagramsAtOnce, [](const nlmsghdr&) {});
    if (!read.ok() || *read == NetlinkSocket::ReadResult::kDrained) break;
  }
  ruleset_ = Ruleset();
  wanted_.clear();
  set_ = nullptr;
  chain_ = nullptr;
  torn_ = false;
  repeated_ = false;
  asked_ = false;
  order_ = 0;
  phase_ = Phase::kGenerationBefore;
  ++attempts_;
}

// An empty batch: the kernel takes the mutex of transactions for it (nf_tables_valid_genid), and does
// nothing more.
absl::Status RulesetReader::WaitForTransaction() {
  std::vector<uint8_t> batch;
  { const NfnetlinkMessage begin(batch, NFNL_MSG_BATCH_BEGIN, 0, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES); }
  { const NfnetlinkMessage end(batch, NFNL_MSG_BATCH_END, 0, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES); }
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (sendto(socket_.fd(), batch.data(), batch.size(), 0, reinterpret_cast<sockaddr*>(&kernel),
             sizeof kernel) < 0) {
    return absl::ErrnoToStatus(errno, "nf_tables: an empty transaction");
  }
  return absl::OkStatus();
}

absl::Status RulesetReader::SendRequest() {
  uint16_t kind = NFT_MSG_GETGEN;
  uint16_t flags = NLM_F_DUMP;
  std::vector<uint8_t> body = Body(AF_UNSPEC);
  switch (phase_) {
    case Phase::kGenerationBefore:
    case Phase::kGenerationAfter:
      flags = 0;
      break;
    case Phase::kTables:
      if (absl::Status status = WaitForTransaction(); !status.ok()) return status;
      kind = NFT_MSG_GETTABLE;
      break;
    case Phase::kChains:
      kind = NFT_MSG_GETCHAIN;
      break;
    case Phase::kRules:
      kind = NFT_MSG_GETRULE;
      break;
    case Phase::kSets:
      kind = NFT_MSG_GETSET;
      break;
    case Phase::kObjects:
      kind = NFT_MSG_GETOBJ;
      break;
    case Phase::kElements: {
      const SetName& wanted = wanted_.back();
      kind = NFT_MSG_GETSETELEM;
      body = Body(static_cast<uint8_t>(wanted.family));
      AppendString(body, NFTA_SET_ELEM_LIST_TABLE, wanted.table);
      AppendString(body, NFTA_SET_ELEM_LIST_SET, wanted.set);
      Table* table = FindTable(ruleset_, wanted.family, wanted.table);
      set_ = &table->sets.at(wanted.set);
      break;
    }
    case Phase::kDone:
      return absl::InternalError("nf_tables: nothing to ask for");
  }
  const auto type = static_cast<uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | kind);
  const absl::StatusOr<uint32_t> sent = socket_.Send(type, flags, body);
  if (!sent.ok()) return sent.status();
  sequence_ = *sent;
  asked_ = true;
  answered_ = false;
  error_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<bool> RulesetReader::Step(size_t datagrams, Nanos now) {
  while (phase_ != Phase::kDone && datagrams > 0) {
    if (!asked_) {
      if (absl::Status status = SendRequest(); !status.ok()) return status;
    }
    const auto read = socket_.Read(1, [&](const nlmsghdr& message) { Take(message, now); });
    if (!read.ok()) return read.status();
    --datagrams;
    if (!answered_) {
      if (*read == NetlinkSocket::ReadResult::kMore) continue;
      // The answer is in the socket when the request returns, so the rest was lost.
      torn_ = true;
    }
    if (absl::Status status = EndPhase(); !status.ok()) return status;
  }
  return phase_ == Phase::kDone;
}

void RulesetReader::Take(const nlmsghdr& message, Nanos now) {
  if (message.nlmsg_seq != sequence_ || answered_) return;  // of a dump that was given up
  if ((message.nlmsg_flags & NLM_F_DUMP_INTR) != 0) torn_ = true;
  if (message.nlmsg_type == NLMSG_DONE || message.nlmsg_type == NLMSG_ERROR) {
    error_ = ErrorNumber(message);
    answered_ = true;
    return;
  }
  TakeContent(message, now);
}

void RulesetReader::TakeContent(const nlmsghdr& message, Nanos now) {
  const auto table_of = [&](const auto& part) -> Table* {
    return part ? FindTable(ruleset_, part->family, part->table) : nullptr;
  };
  switch (MessageKind(message)) {
    case NFT_MSG_NEWGEN:
      if (const auto generation = ParseGeneration(message)) generation_ = *generation;
      answered_ = true;
      return;
    case NFT_MSG_NEWTABLE:
      if (auto table = ParseTable(message)) ruleset_.tables.push_back(*std::move(table));
      return;
    case NFT_MSG_NEWCHAIN: {
      auto chain = ParseChain(message);
      if (Table* table = table_of(chain)) table->chains.push_back(std::move(chain->chain));
      return;
    }
    case NFT_MSG_NEWRULE: {
      auto rule = ParseRule(message);
      Table* table = table_of(rule);
      if (table == nullptr) return;
      // Rules come chain by chain.
      if (chain_ == nullptr || chain_table_ != table || chain_->name != rule->chain) {
        chain_ = FindChain(*table, rule->chain);
        chain_table_ = table;
      }
      if (chain_ == nullptr) return;
      // A transaction under way has put one ahead, so that one came twice.
      if (!chain_->rules.empty() && chain_->rules.back().handle == rule->rule.handle) torn_ = true;
      chain_->rules.push_back(std::move(rule->rule));
      return;
    }
    case NFT_MSG_NEWSET: {
      auto set = ParseSet(message);
      Table* table = table_of(set);
      if (table == nullptr) return;
      if (!wants_elements_ || wants_elements_(*table, set->set)) {
        wanted_.push_back({set->family, set->table, set->set.name});
      }
      std::string name = set->set.name;
      table->sets.insert_or_assign(std::move(name), std::move(set->set));
      return;
    }
    case NFT_MSG_NEWOBJ: {
      auto object = ParseObject(message);
      if (Table* table = table_of(object)) table->objects.push_back(std::move(object->object));
      return;
    }
    case NFT_MSG_NEWSETELEM:
      if (set_ == nullptr) return;
      ForEachElement(message, now, [&](SetElement&& element) {
        element.order = ++order_;
        const size_t before = set_->elements.size();
        set_->elements.insert(set_->elements.end(), std::move(element));
        // One that comes twice: the kernel resized the set's hash table between two parts of the
        // answer, which goes on by the number of elements that were sent already
        // (net/netfilter/nft_set_hash.c). Others were left out then, and nothing else says so.
        if (set_->elements.size() == before) repeated_ = true;
      });
      return;
    default:
      return;
  }
}

absl::Status RulesetReader::EndPhase() {
  set_ = nullptr;
  chain_ = nullptr;
  if (phase_ == Phase::kGenerationBefore && MeansNoNfTables(error_)) {
    ruleset_ = Ruleset();
    phase_ = Phase::kDone;
    asked_ = false;
    return absl::OkStatus();
  }
  // EINTR: torn. ENOENT: a set is gone since its name was read.
  if (error_ == EINTR || error_ == ENOENT || error_ == EAGAIN) torn_ = true;
  // A resize is over soon. Packets that add elements make others come twice as well, for as long as
  // they please: then what has come must do.
  if (repeated_ && repeats_ < kMaxRepeats) {
    ++repeats_;
    torn_ = true;
  }
  if (error_ != 0 && !torn_) {
    return absl::ErrnoToStatus(error_, "cannot read the nftables ruleset");
  }
  if (phase_ == Phase::kGenerationAfter && generation_ != ruleset_.generation) torn_ = true;
  if (torn_) {
    Again();
    return absl::OkStatus();
  }
  asked_ = false;
  switch (phase_) {
    case Phase::kGenerationBefore:
      ruleset_.generation = generation_;
      phase_ = Phase::kTables;
      break;
    case Phase::kTables:
      phase_ = tables_only_ ? Phase::kGenerationAfter : Phase::kChains;
      break;
    case Phase::kChains:
      phase_ = Phase::kRules;
      break;
    case Phase::kRules:
      phase_ = Phase::kSets;
      break;
    case Phase::kSets:
      phase_ = Phase::kObjects;
      break;
    case Phase::kElements:
      wanted_.pop_back();
      [[fallthrough]];
    case Phase::kObjects:
      phase_ = wanted_.empty() ? Phase::kGenerationAfter : Phase::kElements;
      break;
    case Phase::kGenerationAfter:
    case Phase::kDone:
      phase_ = Phase::kDone;
      break;
  }
  return absl::OkStatus();
}

absl::StatusOr<Ruleset> RulesetReader::Read(Nanos now) {
  Start();
  return Finish(now, kMaxAttempts);
}

absl::StatusOr<Ruleset> RulesetReader::ReadTables(Nanos now) {
  Start();
  tables_only_ = true;
  return Finish(now, kMaxTableAttempts);
}

absl::StatusOr<Ruleset> RulesetReader::Finish(Nanos now, int max_attempts) {
  while (attempts_ <= max_attempts) {
    const absl::StatusOr<bool> done = Step(kDatagramsAtOnce, now);
    if (!done.ok()) return done.status();
    if (*done) return Take();
  }
  return absl::UnavailableError(
      absl::StrCat("the nftables ruleset changed during each of ", max_attempts, " readings"));
}

}  // namespace sluice::control::nft
