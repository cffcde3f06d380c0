// Lengths and names of meta and ct keys, and of objects (linux/netfilter/nf_tables.h).
#ifndef SLUICE_CONTROL_RULESET_KEYS_H_
#define SLUICE_CONTROL_RULESET_KEYS_H_

#include <cstdint>
#include <string>

#include "control/nft/model.h"

namespace sluice::control {

inline constexpr uint32_t kVerdictType = 0xffffff00;  // NFT_DATA_VERDICT

// What the key takes in registers, in bytes; 0: Sluice cannot load it.
uint8_t MetaLength(uint32_t key);
uint8_t CtLength(uint32_t key, nft::TableFamily family);
std::string MetaName(uint32_t key);
std::string CtName(uint32_t key);

bool IsStatefulObject(uint32_t type);  // counter, quota, limit, ct count
std::string ObjectName(uint32_t type);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RULESET_KEYS_H_
