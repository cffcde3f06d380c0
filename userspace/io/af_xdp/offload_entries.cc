#include "io/af_xdp/offload_entries.h"

#include <bpf/bpf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "bpf/include/offload_tag.h"

namespace sluice::io::af_xdp {
namespace {

uint64_t Tag(const sluice_offload_key4& key, const sluice_offload_entry4& entry) {
  return sluice_offload_tag4(&key, &entry);
}
uint64_t Tag(const sluice_offload_key6& key, const sluice_offload_entry6& entry) {
  return sluice_offload_tag6(&key, &entry);
}

// The kernel copies a batch element by element; more per call would gain nothing.
constexpr size_t kBatch = 4096;

// How many elements of a batch were done. An error that is no element's leaves the count as it was.
uint32_t Done(int error, uint32_t asked, uint32_t count) {
  return error != 0 && count == asked ? 0 : count;
}

absl::Status Failed(const char* what, int error) {
  return absl::InternalError(
      absl::StrCat("entries of the flow tier cannot be ", what, ": ", std::strerror(error)));
}

}  // namespace

template <class Key, class Entry>
void OffloadEntries<Key, Entry>::Remove(const Key& key, uint32_t id) {
  const Name name{key};
  const auto present = present_.find(name);
  const auto pending = pending_.find(name);
  if (pending == pending_.end()) {
    if (present != present_.end() && present->second == id) pending_[name] = nullptr;
    return;
  }
  if (pending->second == nullptr || pending->second->action.id != id) return;
  // Not just forgotten: the addition would have replaced what is there.
  if (present == present_.end()) {
    pending_.erase(pending);
  } else {
    pending->second = nullptr;
  }
}

template <class Key, class Entry>
absl::Status OffloadEntries<Key, Entry>::Flush() {
  absl::Status status = Delete();
  if (absl::Status s = Update(); status.ok()) status = s;
  pending_.clear();
  return status;
}

template <class Key, class Entry>
absl::Status OffloadEntries<Key, Entry>::Delete() {
  keys_.clear();
  for (const auto& [name, entry] : pending_) {
    if (entry == nullptr) keys_.push_back(name.key);
  }
  for (size_t at = 0; at < keys_.size();) {
    const auto asked = static_cast<uint32_t>(std::min(kBatch, keys_.size() - at));
    uint32_t count = asked;
    const int error = -bpf_map_delete_batch(fd_, &keys_[at], &count, nullptr);
    count = Done(error, asked, count);
    for (size_t i = at; i < at + count; ++i) present_.erase({keys_[i]});
    at += count;
    if (error != 0) return Failed("removed", error);
  }
  return absl::OkStatus();
}

template <class Key, class Entry>
absl::Status OffloadEntries<Key, Entry>::Update() {
  keys_.clear();
  values_.clear();
  size_t room = capacity_ - present_.size();
  for (const auto& [name, entry] : pending_) {
    if (entry == nullptr) continue;
    if (!present_.contains(name)) {
      if (room == 0) {
        ++full_;
        continue;
      }
      --room;
    }
    keys_.push_back(name.key);
    values_.push_back(*entry);
    values_.back().action.tag = Tag(name.key, *entry);
  }
  for (size_t at = 0; at < keys_.size();) {
    const auto asked = static_cast<uint32_t>(std::min(kBatch, keys_.size() - at));
    uint32_t count = asked;
    const int error = -bpf_map_update_batch(fd_, &keys_[at], &values_[at], &count, nullptr);
    count = Done(error, asked, count);
    for (size_t i = at; i < at + count; ++i) present_[{keys_[i]}] = values_[i].action.id;
    at += count;
    if (error == 0) continue;
    if (error != E2BIG) return Failed("added", error);
    ++full_;
    ++at;
  }
  return absl::OkStatus();
}

template class OffloadEntries<sluice_offload_key4, sluice_offload_entry4>;
template class OffloadEntries<sluice_offload_key6, sluice_offload_entry6>;

}  // namespace sluice::io::af_xdp
