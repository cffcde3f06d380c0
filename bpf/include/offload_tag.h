/* How an entry of the flow tier is bound to its key.
 *
 * The kernel uses an entry's memory again as soon as the entry is deleted or replaced, also while a
 * program still reads it. So a program copies the entry, and then compares its tag: a sum of all
 * words of key and entry, each times an odd number of its own, modulo 2^64. Two entries mixed up,
 * or another key's, have it by chance only, and only if they were written within the few
 * nanoseconds between lookup and copy.
 */
#ifndef SLUICE_BPF_INCLUDE_OFFLOAD_TAG_H_
#define SLUICE_BPF_INCLUDE_OFFLOAD_TAG_H_

#include "offload_abi.h"
#include "parse.h"

#define SLUICE_OFFLOAD_TAG_BASE 0x632be59bd9b4e019ull
#define SLUICE_OFFLOAD_TAG_FACTOR(i) \
  ((((__u64)(i) + 1) * 0x9e3779b97f4a7c15ull ^ ((__u64)(i) + 1) * 0xbf58476d1ce4e5b9ull >> 29) | 1)
#define SLUICE_OFFLOAD_TAG_WORD 6      /* where `tag` itself is, and not counted */
#define SLUICE_OFFLOAD_TAG_KEY_WORDS 5 /* at most */

#ifdef __bpf__
/* Keys and entries are where 64 bits can be loaded, which clang cannot know of the keys. */
typedef __u64 __attribute__((may_alias)) sluice_u64;
SLUICE_INLINE __u64 sluice_load64(const void* p, __u32 i) { return ((const sluice_u64*)p)[i]; }
#else
SLUICE_INLINE __u64 sluice_load64(const void* p, __u32 i) {
  __u64 v;
  __builtin_memcpy(&v, (const char*)p + (__u64)i * sizeof(v), sizeof(v));
  return v;
}
#endif

SLUICE_INLINE __u64 sluice_offload_tag(const void* key, __u32 key_words, const void* entry,
                                       __u32 entry_words) {
  __u64 tag = SLUICE_OFFLOAD_TAG_BASE;
  for (__u32 i = 0; i < key_words; ++i) tag += sluice_load64(key, i) * SLUICE_OFFLOAD_TAG_FACTOR(i);
  for (__u32 i = 0; i < entry_words; ++i) {
    if (i == SLUICE_OFFLOAD_TAG_WORD) continue;
    tag += sluice_load64(entry, i) * SLUICE_OFFLOAD_TAG_FACTOR(SLUICE_OFFLOAD_TAG_KEY_WORDS + i);
  }
  return tag;
}
SLUICE_INLINE __u64 sluice_offload_tag4(const struct sluice_offload_key4* key,
                                        const struct sluice_offload_entry4* entry) {
  return sluice_offload_tag(key, sizeof(*key) / 8, entry, sizeof(*entry) / 8);
}
SLUICE_INLINE __u64 sluice_offload_tag6(const struct sluice_offload_key6* key,
                                        const struct sluice_offload_entry6* entry) {
  return sluice_offload_tag(key, sizeof(*key) / 8, entry, sizeof(*entry) / 8);
}

#endif /* SLUICE_BPF_INCLUDE_OFFLOAD_TAG_H_ */
