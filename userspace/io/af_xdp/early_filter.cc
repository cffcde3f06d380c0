#include "io/af_xdp/early_filter.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice::io::af_xdp {
namespace {

using tables::EarlyLimit;
using tables::EarlyProgram;
using tables::EarlyRange;
using tables::EarlyRanges;
using tables::EarlyRule;
using tables::EarlySet4;

constexpr uint32_t kTriePlaces = SLUICE_EARLY_TRIES - 1;  // the last is Quiesce's
static_assert(4 * EarlyTable4::kPages <= SLUICE_EARLY_PAGES);

struct TrieKey {
  uint32_t length;
  uint8_t address[16];
};

absl::Status Failed(const char* what, int error) {
  return absl::InternalError(absl::StrCat("early filter: ", what, ": ", std::strerror(error)));
}

size_t CoresBytes() {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (2 * sizeof(sluice_early_core) + page - 1) / page * page;
}

TrieKey ToKey(const Ipv6Prefix& prefix) {
  TrieKey key{prefix.length, {}};
  prefix.address.ToWire(key.address);
  return key;
}

int NewTrie() {
  bpf_map_create_opts options{};
  options.sz = sizeof options;
  options.map_flags = BPF_F_NO_PREALLOC;
  return bpf_map_create(BPF_MAP_TYPE_LPM_TRIE, "early_trie", sizeof(TrieKey), sizeof(uint32_t),
                        SLUICE_EARLY_TRIE_SIZE, &options);
}

// What is in exactly one of the two, as ranges that may touch.
void AddDifference(const EarlyRanges<Ipv4>& a, const EarlyRanges<Ipv4>& b, EarlyRanges<Ipv4>& out) {
  size_t i = 0;
  size_t j = 0;
  while (i < a.size() || j < b.size()) {
    if (i < a.size() && j < b.size() && a[i] == b[j]) {
      ++i;
      ++j;
    } else if (j == b.size() || (i < a.size() && a[i] < b[j])) {
      out.push_back(a[i++]);
    } else {
      out.push_back(b[j++]);
    }
  }
}

EarlyRanges<Ipv4> Difference(const std::vector<EarlySet4>& old, const std::vector<EarlySet4>& now) {
  EarlyRanges<Ipv4> changed;
  for (size_t i = 0; i < now.size(); ++i) {
    if (old[i] != now[i]) AddDifference(*old[i], *now[i], changed);
  }
  std::sort(changed.begin(), changed.end());
  return changed;
}

}  // namespace

EarlyFilter::EarlyFilter(const Maps& maps, EarlyLimits& limits)
    : maps_(maps), limits_(limits), pages_(maps.pages) {}

absl::StatusOr<std::unique_ptr<EarlyFilter>> EarlyFilter::Create(const Maps& maps,
                                                                 EarlyLimits& limits) {
  std::unique_ptr<EarlyFilter> filter(new EarlyFilter(maps, limits));
  void* memory = mmap(nullptr, CoresBytes(), PROT_READ | PROT_WRITE, MAP_SHARED, maps.cores, 0);
  if (memory == MAP_FAILED) return Failed("its map cannot be mapped", errno);
  filter->cores_ = static_cast<sluice_early_core*>(memory);
  filter->idle_trie_ = NewTrie();
  if (filter->idle_trie_ < 0) return Failed("a trie cannot be made", -filter->idle_trie_);
  return filter;
}

EarlyFilter::~EarlyFilter() {
  if (maps_.word != nullptr) __atomic_store_n(maps_.word, 0, __ATOMIC_RELEASE);
  ReleaseLimits(program_);
  for (const int fd : tables_.trie_fds) {
    if (fd >= 0) close(fd);
  }
  if (idle_trie_ >= 0) close(idle_trie_);
  if (cores_ != nullptr) munmap(cores_, CoresBytes());
}

void EarlyFilter::WriteWord() {
  uint32_t word = 0;
  if (!program_.rules.empty()) word |= active_ + 1;
  if (checks_.headers) word |= SLUICE_EARLY_HEADERS;
  if (checks_.martians && program_.martians) word |= SLUICE_EARLY_MARTIANS;
  if (checks_.loopback) word |= SLUICE_EARLY_LOOPBACK;
  if ((word & ~SLUICE_EARLY_LOOPBACK) == 0) word = 0;
  __atomic_store_n(maps_.word, word, __ATOMIC_RELEASE);
}

void EarlyFilter::SetChecks(const EarlyChecks& checks) {
  checks_ = checks;
  WriteWord();
}

// Changing a map of maps returns when all programs that ran before have ended.
absl::Status EarlyFilter::Quiesce() {
  const uint32_t place = kTriePlaces;
  const int error = bpf_map_update_elem(maps_.tries, &place, &idle_trie_, BPF_ANY);
  return error == 0 ? absl::OkStatus() : Failed("waiting for running programs", -error);
}

absl::StatusOr<EarlyFilter::Counts> EarlyFilter::ReadSlots() const {
  std::vector<sluice_xdp_stats> cells(static_cast<size_t>(libbpf_num_possible_cpus()));
  const uint32_t key = 0;
  const int error = bpf_map_lookup_elem(maps_.stats, &key, cells.data());
  if (error != 0) return Failed("counters cannot be read", -error);
  Counts sums{};
  for (const sluice_xdp_stats& cell : cells) {
    for (size_t i = 0; i < sums.size(); ++i) {
      sums[i].packets += cell.early[i].packets;
      sums[i].bytes += cell.early[i].bytes;
    }
  }
  return sums;
}

absl::StatusOr<std::vector<EarlyRuleCount>> EarlyFilter::ReadCounts() const {
  const absl::StatusOr<Counts> sums = ReadSlots();
  if (!sums.ok()) return sums.status();
  std::vector<EarlyRuleCount> counts;
  for (size_t i = 0; i < program_.rules.size(); ++i) {
    const size_t slot = slots_.counters[i];
    counts.push_back({program_.rules[i].key, (*sums)[slot].packets - base_[slot].packets,
                      (*sums)[slot].bytes - base_[slot].bytes});
  }
  return counts;
}

// A rule that stays keeps its slot. A slot that the program before does not use has counted its
// last packet before that program came.
absl::StatusOr<EarlySlots> EarlyFilter::AssignSlots(const EarlyProgram& program) {
  const absl::StatusOr<Counts> sums = ReadSlots();
  if (!sums.ok()) return sums.status();
  std::map<tables::EarlyRuleKey, uint8_t> known;
  std::array<bool, SLUICE_EARLY_COUNTERS> taken{};
  for (size_t i = 0; i < program_.rules.size(); ++i) {
    known[program_.rules[i].key] = slots_.counters[i];
    taken[slots_.counters[i]] = true;
  }
  EarlySlots slots;
  for (const EarlyRule& rule : program.rules) {
    const auto found = known.find(rule.key);
    if (found != known.end()) {
      slots.counters.push_back(found->second);
      known.erase(found);  // one slot each, should two rules have the same key
    } else {
      const auto free = std::find(taken.begin(), taken.end(), false);
      *free = true;
      slots.counters.push_back(static_cast<uint8_t>(free - taken.begin()));
      base_[slots.counters.back()] = (*sums)[slots.counters.back()];
    }
  }
  for (size_t i = 0; i < program.rules.size(); ++i) {
    uint32_t number = 0;
    if (const auto& limit = program.rules[i].limit) {
      absl::StatusOr<uint32_t> acquired = limits_.Acquire(program.rules[i].key, *limit);
      if (!acquired.ok()) {
        for (size_t j = 0; j < i; ++j) {
          const EarlyRule& rule = program.rules[j];
          if (rule.limit) limits_.Release(rule.key, *rule.limit);
        }
        return acquired.status();
      }
      number = *acquired;
    }
    slots.buckets.push_back(number);
  }
  return slots;
}

void EarlyFilter::ReleaseLimits(const EarlyProgram& program) {
  for (const EarlyRule& rule : program.rules) {
    if (rule.limit) limits_.Release(rule.key, *rule.limit);
  }
}

absl::StatusOr<std::vector<EarlyRuleCount>> EarlyFilter::Install(const EarlyProgram& program) {
  if (OnlySetsDiffer(program)) {
    const absl::Status changed = ChangeSets(program);
    if (changed.ok()) {
      program_ = program;
      WriteWord();
      return std::vector<EarlyRuleCount>();
    }
    if (!absl::IsResourceExhausted(changed)) return changed;
  }
  // Counts of the old program's rules, read again when the new one is in force.
  const EarlyProgram old = program_;
  const EarlySlots old_slots = slots_;
  const Counts old_base = base_;
  if (absl::Status s = Replace(program); !s.ok()) return s;
  const absl::StatusOr<Counts> sums = ReadSlots();
  if (!sums.ok()) return sums.status();
  std::vector<EarlyRuleCount> retired;
  for (size_t i = 0; i < old.rules.size(); ++i) {
    const uint8_t slot = old_slots.counters[i];
    if (std::count(slots_.counters.begin(), slots_.counters.end(), slot) != 0) continue;
    retired.push_back({old.rules[i].key, (*sums)[slot].packets - old_base[slot].packets,
                       (*sums)[slot].bytes - old_base[slot].bytes});
  }
  return retired;
}

bool EarlyFilter::OnlySetsDiffer(const EarlyProgram& program) const {
  return !program_.rules.empty() && program.rules == program_.rules &&
         program.port_sets == program_.port_sets && program.sets4.size() == program_.sets4.size() &&
         program.sets6.size() == program_.sets6.size();
}

absl::Status EarlyFilter::ChangeSets(const EarlyProgram& program) {
  for (int which : {0, 1}) {
    if (EarlyTable4* table = tables_.table4[which].get()) {
      const int dimension = which == 0 ? SLUICE_EARLY_SRC4 : SLUICE_EARLY_DST4;
      const std::vector<EarlySet4> sets = EarlySets4(program, dimension);
      const EarlyRanges<Ipv4> changed = Difference(EarlySets4(program_, dimension), sets);
      if (absl::Status s = table->Change(sets, changed); !s.ok()) return s;
    }
    if (EarlyTrie6* trie = tables_.trie6[which].get()) {
      const int dimension = which == 0 ? SLUICE_EARLY_SRC6 : SLUICE_EARLY_DST6;
      const std::vector<tables::EarlySet6> sets = EarlySets6(program, dimension);
      if (sets == EarlySets6(program_, dimension)) continue;
      if (absl::Status s = ChangeTrie(*trie, tables_.trie_fds[which], sets); !s.ok()) return s;
    }
  }
  return absl::OkStatus();
}

absl::Status EarlyFilter::ChangeTrie(EarlyTrie6& trie, int fd,
                                     const std::vector<tables::EarlySet6>& sets) {
  const auto put = [fd](const Ipv6Prefix& prefix, uint8_t number) {
    const TrieKey key = ToKey(prefix);
    const uint32_t value = number;
    const int error = bpf_map_update_elem(fd, &key, &value, BPF_ANY);
    if (error == 0) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat("early filter: no room for an IPv6 prefix: ", std::strerror(-error)));
  };
  const auto remove = [fd](const Ipv6Prefix& prefix) {
    const TrieKey key = ToKey(prefix);
    const int error = bpf_map_delete_elem(fd, &key);
    return error == 0 ? absl::OkStatus() : Failed("an IPv6 prefix cannot be removed", -error);
  };
  return trie.Change(sets, put, remove);
}

absl::Status EarlyFilter::BuildTrie(const EarlyProgram& program, int which, uint32_t index,
                                    Tables& tables) {
  const std::vector<tables::EarlySet6> sets =
      EarlySets6(program, which == 0 ? SLUICE_EARLY_SRC6 : SLUICE_EARLY_DST6);
  if (std::none_of(sets.begin(), sets.end(), [](const auto& s) { return s != nullptr; })) {
    return absl::OkStatus();
  }
  const int fd = NewTrie();
  if (fd < 0) return Failed("a trie cannot be made", -fd);
  tables.trie_fds[which] = fd;
  tables.trie_places[which] = index * 2 + static_cast<uint32_t>(which);
  tables.trie6[which] = std::make_unique<EarlyTrie6>();
  if (absl::Status s = ChangeTrie(*tables.trie6[which], fd, sets); !s.ok()) return s;
  const int error = bpf_map_update_elem(maps_.tries, &tables.trie_places[which], &fd, BPF_ANY);
  return error == 0 ? absl::OkStatus() : Failed("a trie cannot be handed over", -error);
}

absl::Status EarlyFilter::BuildTables(const EarlyProgram& program, uint32_t index, Tables& tables) {
  for (int which : {0, 1}) {
    if (absl::Status s = BuildTrie(program, which, index, tables); !s.ok()) return s;
    const std::vector<EarlySet4> sets =
        EarlySets4(program, which == 0 ? SLUICE_EARLY_SRC4 : SLUICE_EARLY_DST4);
    if (std::none_of(sets.begin(), sets.end(), [](const auto& s) { return s != nullptr; })) {
      continue;
    }
    const uint32_t first_page = (index * 2 + static_cast<uint32_t>(which)) * EarlyTable4::kPages;
    tables.table4[which] = std::make_unique<EarlyTable4>(
        first_page, [this, first_page](uint32_t number) -> absl::StatusOr<sluice_early_line*> {
          absl::StatusOr<sluice_early_line*> page = pages_.Lend(first_page + number);
          // While a table is in force a page that it asks for must be there at once.
          if (page.ok() && !building_) {
            if (absl::Status s = pages_.Publish(); !s.ok()) return s;
          }
          return page;
        });
    if (absl::Status s = tables.table4[which]->Build(sets); !s.ok()) return s;
  }
  return pages_.Publish();
}

// From now on a new class gets its rules before a table can lead to it.
void EarlyFilter::TellNewClasses(Tables& tables, uint32_t index) {
  const auto tell = [this, index](int dimension) {
    return [this, index, dimension](uint8_t number, uint64_t sets) {
      __atomic_store_n(&cores_[index].address_rules[dimension][number],
                       EarlyAddressRules(program_, dimension, sets), __ATOMIC_RELEASE);
    };
  };
  for (int which : {0, 1}) {
    if (tables.table4[which]) {
      tables.table4[which]->classes().set_on_new(tell(SLUICE_EARLY_SRC4 + which));
    }
    if (tables.trie6[which]) {
      tables.trie6[which]->classes().set_on_new(tell(SLUICE_EARLY_SRC6 + which));
    }
  }
}

absl::Status EarlyFilter::Replace(const EarlyProgram& program) {
  const uint32_t next = 1 - active_;
  Tables tables;
  building_ = true;
  absl::Status built = BuildTables(program, next, tables);
  building_ = false;
  const auto discard = [](Tables& t) {
    for (const int fd : t.trie_fds) {
      if (fd >= 0) close(fd);
    }
  };
  if (!built.ok()) {
    discard(tables);
    return built;
  }
  absl::StatusOr<EarlySlots> slots = AssignSlots(program);
  if (!slots.ok()) {
    discard(tables);
    return slots.status();
  }
  std::array<const EarlyClasses*, 4> classes{};
  sluice_early_core& core = cores_[next];
  for (int which : {0, 1}) {
    if (tables.table4[which]) classes[SLUICE_EARLY_SRC4 + which] = &tables.table4[which]->classes();
    if (tables.trie6[which]) classes[SLUICE_EARLY_SRC6 + which] = &tables.trie6[which]->classes();
  }
  if (absl::Status s = FillEarlyCore(program, *slots, classes, core); !s.ok()) {
    discard(tables);
    ReleaseLimits(program);
    return s;
  }
  for (int which : {0, 1}) {
    if (tables.table4[which]) core.table4[which] = tables.table4[which]->description();
    core.trie[which] = tables.trie_places[which];
  }
  std::swap(tables, tables_);
  const EarlyProgram old = std::exchange(program_, program);
  slots_ = *std::move(slots);
  active_ = next;
  TellNewClasses(tables_, next);
  WriteWord();
  ReleaseLimits(old);
  const absl::Status quiet = Quiesce();
  discard(tables);
  return quiet;
}

}  // namespace sluice::io::af_xdp
