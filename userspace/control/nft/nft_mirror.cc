#include "control/nft/nft_mirror.h"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "control/nft/messages.h"

namespace sluice::control::nft {
namespace {

constexpr size_t kMaxPending = 256 << 20;  // bytes of one transaction
constexpr size_t kDatagramsPerRun = 32;
constexpr Nanos kAuditInterval = Seconds(10);
constexpr Nanos kExpiryInterval = Seconds(60);
constexpr int kHastyAttempts = 3;  // at reading, then with pauses
constexpr Nanos kPause = Millis(50);

// Generations count up and wrap around; 0 is left out.
bool IsNewer(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) > 0; }
uint32_t NextGeneration(uint32_t generation) { return generation == ~0u ? 1 : generation + 1; }

bool SameDefinition(const Set& a, const Set& b) {
  return a.flags == b.flags && a.key_type == b.key_type && a.key_length == b.key_length &&
         a.data_type == b.data_type && a.data_length == b.data_length &&
         a.object_type == b.object_type && a.timeout_ms == b.timeout_ms &&
         a.field_lengths == b.field_lengths && SameExprs(a.exprs, b.exprs);
}

// The same set, not another one of the same name.
Set* FindSet(Ruleset& ruleset, const Table& table, const Set& set) {
  Table* const found = FindTable(ruleset, table.family, table.name);
  if (found == nullptr || found->handle != table.handle) return nullptr;
  const auto same = found->sets.find(set.name);
  return same == found->sets.end() || same->second.handle != set.handle ? nullptr : &same->second;
}

bool SameTables(const Ruleset& a, const Ruleset& b) {
  return std::equal(a.tables.begin(), a.tables.end(), b.tables.begin(), b.tables.end(),
                    [](const Table& x, const Table& y) {
                      return x.handle == y.handle && x.family == y.family && x.name == y.name &&
                             x.dormant == y.dormant;
                    });
}

}  // namespace

absl::StatusOr<std::unique_ptr<NftMirror>> NftMirror::Open(Nanos now,
                                                           const NftMirrorOptions& mirror_options) {
  std::unique_ptr<NftMirror> mirror(new NftMirror);
  NetlinkOptions options;
  options.protocol = NETLINK_NETFILTER;
  options.strict_check = false;
  options.receive_buffer = mirror_options.event_buffer;
  absl::StatusOr<NetlinkSocket> events = NetlinkSocket::Open(options);
  // A kernel without nfnetlink has no rules either.
  if (!events.ok()) return mirror;
  constexpr int kGroups[] = {NFNLGRP_NFTABLES};
  if (absl::Status joined = events->Join(kGroups); !joined.ok()) return joined;
  absl::StatusOr<RulesetReader> reader = RulesetReader::Open();
  if (!reader.ok()) return reader.status();
  absl::StatusOr<Ruleset> ruleset = reader->Read(now);
  if (!ruleset.ok()) return ruleset.status();
  mirror->events_ = *std::move(events);
  mirror->reader_ = *std::move(reader);
  mirror->InstallAll(*std::move(ruleset));
  mirror->stats_.full_readings = 1;
  (void)mirror->editor_.TakeChange(mirror->ruleset_);  // of nothing that was given out before
  mirror->next_audit_ = now + kAuditInterval;
  mirror->next_expiry_ = now + kExpiryInterval;
  return mirror;
}

Nanos NftMirror::NextDeadline() const {
  if (more_events_ || lost_) return Nanos(0);
  if (state_ == State::kReadingStructure || state_ == State::kReadingAll) return next_reading_;
  return std::min(next_audit_, next_expiry_);
}

absl::StatusOr<std::optional<RulesetChange>> NftMirror::Run(Nanos now) {
  if (!events_) return std::nullopt;
  if (absl::Status status = ReadEvents(now); !status.ok()) return status;
  if (now >= next_audit_) {
    next_audit_ = now + kAuditInterval;
    if (absl::Status status = Audit(now); !status.ok()) return status;
  }
  if (absl::Status status = ContinueReading(now); !status.ok()) return status;
  if (now >= next_expiry_) {
    next_expiry_ = now + kExpiryInterval;
    DropExpired(now);
  }
  if (state_ != State::kFollowing || !editor_.changed()) return std::nullopt;
  return editor_.TakeChange(ruleset_);
}

absl::Status NftMirror::ReadEvents(Nanos now) {
  // While all is read, the kernel keeps what happens meanwhile.
  more_events_ = false;
  if (state_ == State::kReadingAll) return absl::OkStatus();
  const auto read =
      events_->Read(kDatagramsPerRun, [&](const nlmsghdr& message) { TakeEvent(message, now); });
  if (!read.ok()) return read.status();
  if (*read == NetlinkSocket::ReadResult::kOverflow) {
    ++stats_.overflows;
    lost_ = true;
  }
  more_events_ = *read == NetlinkSocket::ReadResult::kMore;
  // What comes after a loss is worth nothing until the socket was empty once.
  if (lost_ && *read == NetlinkSocket::ReadResult::kDrained) {
    lost_ = false;
    StartAll();
  }
  return absl::OkStatus();
}

void NftMirror::TakeEvent(const nlmsghdr& message, Nanos now) {
  const int kind = MessageKind(message);
  if (lost_ || kind < 0) return;
  if (kind == NFT_MSG_NEWGEN) {
    if (const auto generation = ParseGeneration(message)) EndTransaction(*generation, now);
    return;
  }
  if (kind == NFT_MSG_TRACE) return;
  if (pending_.size() + message.nlmsg_len > kMaxPending) {
    lost_ = true;
    return;
  }
  const auto* bytes = reinterpret_cast<const uint8_t*>(&message);
  pending_.insert(pending_.end(), bytes, bytes + message.nlmsg_len);
  pending_.resize(NLMSG_ALIGN(pending_.size()));
}

void NftMirror::EndTransaction(uint32_t generation, Nanos now) {
  const std::vector<uint8_t> messages = std::exchange(pending_, {});
  if (!IsNewer(generation, ruleset_.generation)) return;  // a reading has it already
  if (generation != NextGeneration(ruleset_.generation)) {
    lost_ = true;
    return;
  }
  for (size_t at = 0; at + sizeof(nlmsghdr) <= messages.size();) {
    const auto* message = reinterpret_cast<const nlmsghdr*>(messages.data() + at);
    editor_.Apply(ruleset_, *message, now);
    at += NLMSG_ALIGN(message->nlmsg_len);
  }
  editor_.EndTransaction();
  ruleset_.generation = generation;
  ++stats_.transactions;
  if (state_ == State::kCatchingUp && !IsNewer(structure_.generation, generation)) {
    InstallStructure();
  } else if (state_ == State::kFollowing && editor_.stale()) {
    StartStructure();
  }
}

absl::Status NftMirror::ContinueReading(Nanos now) {
  if (state_ != State::kReadingStructure && state_ != State::kReadingAll) return absl::OkStatus();
  if (now < next_reading_) return absl::OkStatus();
  const int attempts = reader_->attempts();
  const absl::StatusOr<bool> done = reader_->Step(kDatagramsPerRun, now);
  if (!done.ok()) return done.status();
  if (!*done) {
    // It changes while it is read; whoever changes it needs the processor too.
    if (reader_->attempts() > std::max(attempts, kHastyAttempts)) next_reading_ = now + kPause;
    return absl::OkStatus();
  }
  if (state_ == State::kReadingAll) {
    state_ = State::kFollowing;
    InstallAll(reader_->Take());
    return absl::OkStatus();
  }
  structure_ = reader_->Take();
  state_ = State::kCatchingUp;
  if (IsNewer(ruleset_.generation, structure_.generation)) {
    StartStructure();  // the messages are ahead of it
  } else if (structure_.generation == ruleset_.generation) {
    InstallStructure();
  }
  return absl::OkStatus();
}

void NftMirror::StartStructure() {
  state_ = State::kReadingStructure;
  next_reading_ = Nanos(0);
  ++stats_.structure_readings;
  reader_->Start([this](const Table& table, const Set& set) {
    return FindSet(ruleset_, table, set) == nullptr;
  });
}

void NftMirror::StartAll() {
  state_ = State::kReadingAll;
  next_reading_ = Nanos(0);
  ++stats_.full_readings;
  pending_.clear();
  reader_->Start();
}

void NftMirror::InstallStructure() {
  for (Table& table : structure_.tables) {
    for (auto& [name, set] : table.sets) {
      Set* const known = FindSet(ruleset_, table, set);
      if (known != nullptr) set.elements = std::move(known->elements);
      set.version =
          known != nullptr && SameDefinition(*known, set) ? known->version : editor_.NextVersion();
    }
  }
  ruleset_ = std::exchange(structure_, {});
  editor_.OnRead();
  state_ = State::kFollowing;
}

void NftMirror::InstallAll(Ruleset ruleset) {
  for (Table& table : ruleset.tables) {
    for (auto& [name, set] : table.sets) {
      const Set* const known = FindSet(ruleset_, table, set);
      const bool same =
          known != nullptr && SameDefinition(*known, set) && SameElements(*known, set);
      set.version = same ? known->version : editor_.NextVersion();
    }
  }
  ruleset_ = std::move(ruleset);
  editor_.OnRead();
}

absl::Status NftMirror::Audit(Nanos now) {
  const uint32_t before = std::exchange(audited_generation_, ruleset_.generation);
  if (state_ == State::kCatchingUp && before == ruleset_.generation) StartAll();
  if (state_ != State::kFollowing || more_events_ || lost_) return absl::OkStatus();
  const absl::StatusOr<Ruleset> tables = reader_->ReadTables(now);
  if (absl::IsUnavailable(tables.status())) return absl::OkStatus();  // changing right now
  if (!tables.ok()) return tables.status();
  if (tables->generation == ruleset_.generation) {
    if (!SameTables(*tables, ruleset_)) StartAll();
  } else if (before == ruleset_.generation) {
    StartAll();  // the messages of a newer one should have come long ago
  }
  return absl::OkStatus();
}

void NftMirror::DropExpired(Nanos now) {
  for (Table& table : ruleset_.tables) {
    for (auto& [name, set] : table.sets) {
      std::erase_if(set.elements,
                    [now](const SetElement& element) { return element.expires_at <= now; });
    }
  }
}

}  // namespace sluice::control::nft
