#include "io/af_xdp/offload_maps.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace sluice::io::af_xdp {
namespace {

// A few more than there can be entries: a key whose id is already somebody else's may still wait to
// be removed.
uint32_t Capacity(uint32_t ids) { return ids + ids / 16 + 64; }

size_t Pages(size_t bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

absl::Status SetUpError(int error) {
  const char* const advice =
      error == ENOMEM || error == E2BIG
          ? "there is not enough memory for so many entries: lower the limit"
          : "the process needs CAP_BPF and CAP_NET_ADMIN, or leave the flow tier off";
  return absl::FailedPreconditionError(absl::StrCat(
      "the flow tier's tables cannot be set up: ", std::strerror(error), "; ", advice));
}

// Null, and errno, when it fails.
void* Map(int fd, size_t size) {
  void* const at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return at == MAP_FAILED ? nullptr : at;
}

}  // namespace

absl::StatusOr<std::unique_ptr<OffloadMaps>> OffloadMaps::Create(uint32_t ids) {
  const int cpus = libbpf_num_possible_cpus();
  if (cpus < 0) return absl::InternalError("the number of CPUs is unknown");
  std::unique_ptr<OffloadMaps> maps(new OffloadMaps);
  if (absl::Status s = maps->Open(ids, static_cast<uint32_t>(cpus)); !s.ok()) return s;
  return maps;
}

absl::Status OffloadMaps::Open(uint32_t ids, uint32_t cpus) {
  const uint64_t cells = uint64_t{ids} * cpus;
  if (ids == 0 || cells > (uint64_t{1} << 32) / sizeof(sluice_offload_cell)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the flow tier can have from 1 to ",
        (uint64_t{1} << 32) / sizeof(sluice_offload_cell) / cpus, " entries, not ", ids));
  }
  constexpr uint32_t kKey = sizeof(uint32_t);
  bpf_map_create_opts mappable{};
  mappable.sz = sizeof mappable;
  mappable.map_flags = BPF_F_MMAPABLE;
  const uint32_t capacity = Capacity(ids);
  struct {
    int& fd;
    bpf_map_type type;
    const char* name;
    uint32_t key;
    uint32_t value;
    uint32_t entries;
  } const wanted[] = {
      {fds_.flows4, BPF_MAP_TYPE_HASH, "offload_flows4", sizeof(sluice_offload_key4),
       sizeof(sluice_offload_entry4), capacity},
      {fds_.flows6, BPF_MAP_TYPE_HASH, "offload_flows6", sizeof(sluice_offload_key6),
       sizeof(sluice_offload_entry6), capacity},
      {fds_.cells, BPF_MAP_TYPE_ARRAY, "offload_cells", kKey, sizeof(sluice_offload_cell),
       static_cast<uint32_t>(cells)},
      {fds_.splices, BPF_MAP_TYPE_ARRAY, "offload_splices", kKey, sizeof(sluice_splice), ids},
      {fds_.state, BPF_MAP_TYPE_ARRAY, "offload_state", kKey, sizeof(sluice_offload_state), 1},
      {fds_.devices, BPF_MAP_TYPE_DEVMAP, "offload_devices", kKey, sizeof(uint32_t),
       SLUICE_OFFLOAD_DEVICES},
      {fds_.devices_f, BPF_MAP_TYPE_DEVMAP, "offload_devs_f", kKey, sizeof(uint32_t),
       SLUICE_OFFLOAD_DEVICES},
  };
  for (const auto& w : wanted) {
    w.fd = bpf_map_create(w.type, w.name, w.key, w.value, w.entries,
                          w.type == BPF_MAP_TYPE_ARRAY ? &mappable : nullptr);
    if (w.fd < 0) return SetUpError(-w.fd);
  }
  state_size_ = Pages(sizeof(sluice_offload_state));
  cells_size_ = Pages(cells * sizeof(sluice_offload_cell));
  memory_.state = static_cast<sluice_offload_state*>(Map(fds_.state, state_size_));
  if (memory_.state == nullptr) return SetUpError(errno);
  memory_.cells = static_cast<sluice_offload_cell*>(Map(fds_.cells, cells_size_));
  if (memory_.cells == nullptr) return SetUpError(errno);
  splices_size_ = Pages(size_t{ids} * sizeof(sluice_splice));
  memory_.splices = static_cast<sluice_splice*>(Map(fds_.splices, splices_size_));
  if (memory_.splices == nullptr) return SetUpError(errno);
  memory_.ids = ids;
  memory_.cpus = cpus;
  memory_.state->ids = ids;
  memory_.state->world = 1;
  entries4_.Use(fds_.flows4, capacity);
  entries6_.Use(fds_.flows6, capacity);
  return absl::OkStatus();
}

OffloadMaps::~OffloadMaps() {
  if (memory_.splices != nullptr) munmap(memory_.splices, splices_size_);
  if (memory_.cells != nullptr) munmap(memory_.cells, cells_size_);
  if (memory_.state != nullptr) munmap(memory_.state, state_size_);
  for (const int fd : {fds_.flows4, fds_.flows6, fds_.cells, fds_.splices, fds_.state, fds_.devices,
                       fds_.devices_f}) {
    if (fd >= 0) close(fd);
  }
}

absl::Status OffloadMaps::Apply(std::span<const tables::OffloadChange> changes) {
  for (const tables::OffloadChange& change : changes) {
    const bool add = change.kind == tables::OffloadChange::Kind::kAdd;
    const uint32_t id = change.action().id;
    if (change.family == Family::kIpv4) {
      add ? entries4_.Add(change.key4, change.entry4) : entries4_.Remove(change.key4, id);
    } else {
      add ? entries6_.Add(change.key6, change.entry6) : entries6_.Remove(change.key6, id);
    }
  }
  absl::Status status = entries4_.Flush();
  if (absl::Status s = entries6_.Flush(); status.ok()) status = s;
  return status;
}

OffloadMaps::Counts OffloadMaps::counts() const {
  return {.entries4 = entries4_.size(),
          .entries6 = entries6_.size(),
          .full = entries4_.full() + entries6_.full()};
}

absl::Status OffloadMaps::SetDevice(IfaceSlot slot, IfIndex index) {
  const uint32_t key = slot.value;
  for (const int fd : {fds_.devices, fds_.devices_f}) {
    const int error = -bpf_map_update_elem(fd, &key, &index.value, 0);
    if (error != 0) {
      return absl::InternalError(
          absl::StrCat("interface ", index.value,
                       ": cannot be a target of the flow tier: ", std::strerror(error)));
    }
  }
  return absl::OkStatus();
}

absl::Status OffloadMaps::ClearDevice(IfaceSlot slot) {
  const uint32_t key = slot.value;
  for (const int fd : {fds_.devices, fds_.devices_f}) {
    const int error = -bpf_map_delete_elem(fd, &key);
    if (error != 0 && error != ENOENT) {
      return absl::InternalError(absl::StrCat(
          "slot ", slot.value, ": cannot be taken out of the flow tier: ", std::strerror(error)));
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice::io::af_xdp
