/* The early filter's maps, and how early_filter.h reaches them from the kernel. */
#ifndef SLUICE_BPF_INCLUDE_EARLY_MAPS_H_
#define SLUICE_BPF_INCLUDE_EARLY_MAPS_H_

#include "early_abi.h"
#include "parse.h"

/* Two, so that a new program is written aside; sluice_xdp_config.early says which counts. */
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 2);
  __type(key, __u32);
  __type(value, struct sluice_early_core);
} early_cores SEC(".maps");

/* By size: clang leaves types that only inner maps name out of the BTF. */
struct early_page {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, SLUICE_EARLY_PAGE_LINES);
  __uint(key_size, sizeof(__u32));
  __uint(value_size, sizeof(struct sluice_early_line));
};
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, SLUICE_EARLY_PAGES);
  __type(key, __u32);
  __array(values, struct early_page);
} early_pages SEC(".maps");

struct early_trie_key {
  __u32 prefix_length;
  __u8 address[16];
};
struct early_trie {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, SLUICE_EARLY_TRIE_SIZE);
  __uint(key_size, sizeof(struct early_trie_key));
  __uint(value_size, sizeof(__u32));
};
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, SLUICE_EARLY_TRIES);
  __type(key, __u32);
  __array(values, struct early_trie);
} early_tries SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, SLUICE_EARLY_LIMITS);
  __type(key, __u32);
  __type(value, struct sluice_early_bucket);
} early_buckets SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, SLUICE_EARLY_SOURCES);
  __type(key, struct sluice_early_source);
  __type(value, struct sluice_early_bucket);
} early_sources SEC(".maps");

SLUICE_INLINE const struct sluice_early_line* sluice_early_get_line(__u32 number) {
  const __u32 page = number / SLUICE_EARLY_PAGE_LINES;
  const __u32 place = number % SLUICE_EARLY_PAGE_LINES;
  void* lines = bpf_map_lookup_elem(&early_pages, &page);
  return lines ? bpf_map_lookup_elem(lines, &place) : 0;
}

SLUICE_INLINE __u32 sluice_early_class6(__u32 number, const __u8* address) {
  void* trie = bpf_map_lookup_elem(&early_tries, &number);
  struct early_trie_key key = {.prefix_length = 128};
  const __u32* value;
  if (!trie) return 0;
  __builtin_memcpy(key.address, address, 16);
  value = bpf_map_lookup_elem(trie, &key);
  return value ? *value : 0;
}

SLUICE_INLINE struct sluice_early_bucket* sluice_early_rule_bucket(__u32 index) {
  return bpf_map_lookup_elem(&early_buckets, &index);
}

SLUICE_INLINE struct sluice_early_bucket* sluice_early_source_bucket(
    const struct sluice_early_source* key) {
  const struct sluice_early_bucket full = {0};
  struct sluice_early_bucket* bucket = bpf_map_lookup_elem(&early_sources, key);
  if (bucket) return bucket;
  bpf_map_update_elem(&early_sources, key, &full, BPF_NOEXIST);
  return bpf_map_lookup_elem(&early_sources, key);
}

/* Global, so that the verifier looks at it once and not at each of its calls. */
__u32 sluice_early_decide_rest(struct sluice_early_packet* p);

SLUICE_INLINE __u64 sluice_early_now(void) { return bpf_ktime_get_ns(); }

#endif /* SLUICE_BPF_INCLUDE_EARLY_MAPS_H_ */
