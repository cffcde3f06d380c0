// Where an expression takes its value from: a place in the packet, or something known about it.
//
// Two Loads that are equal yield the same bytes for the same packet, as long as nothing has been
// changed; the classifier's dimensions are Loads.
#ifndef SLUICE_TABLES_RULESET_LOAD_H_
#define SLUICE_TABLES_RULESET_LOAD_H_

#include <compare>
#include <cstdint>

namespace sluice::tables {

enum class Source : uint8_t {
  kLink,       // NFT_PAYLOAD_LL_HEADER
  kNetwork,    // NFT_PAYLOAD_NETWORK_HEADER
  kTransport,  // NFT_PAYLOAD_TRANSPORT_HEADER
  kMeta,       // `key` is NFT_META_*
  kCt,         // `key` is NFT_CT_*, `direction` 0, 1, or kNoDirection
  kInner,      // NFT_PAYLOAD_INNER_HEADER: what follows the transport header
};

inline constexpr uint8_t kNoDirection = 0xff;

struct Load {
  Source source = Source::kNetwork;
  uint8_t key = 0;
  uint8_t direction = kNoDirection;
  uint8_t length = 0;  // bytes; a register's rest is zero
  uint16_t offset = 0;
  uint16_t reserved = 0;

  auto operator<=>(const Load&) const = default;
};
static_assert(sizeof(Load) == 8);

// linux/netfilter/nf_tables.h
enum MetaKey : uint8_t {
  kMetaLength, kMetaProtocol, kMetaPriority, kMetaMark, kMetaIif, kMetaOif, kMetaIifName,
  kMetaOifName, kMetaIifType, kMetaOifType, kMetaSkUid, kMetaSkGid, kMetaNfTrace, kMetaRtClassId,
  kMetaSecMark, kMetaNfProto, kMetaL4Proto, kMetaBridgeIifName, kMetaBridgeOifName, kMetaPktType,
  kMetaCpu, kMetaIifGroup, kMetaOifGroup, kMetaCgroup, kMetaRandom, kMetaSecPath, kMetaIifKind,
  kMetaOifKind, kMetaBridgeIifPvid, kMetaBridgeIifVproto, kMetaTime, kMetaDay, kMetaHour,
  kMetaSdif, kMetaSdifName, kMetaBroute,
};

enum CtKey : uint8_t {
  kCtState, kCtDirection, kCtStatus, kCtMark, kCtSecMark, kCtExpiration, kCtHelper, kCtL3Protocol,
  kCtSource, kCtDestination, kCtProtocol, kCtProtoSource, kCtProtoDestination, kCtLabels, kCtPackets,
  kCtBytes, kCtAveragePacket, kCtZone, kCtEventMask, kCtSourceIp, kCtDestinationIp, kCtSourceIp6,
  kCtDestinationIp6, kCtId,
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_RULESET_LOAD_H_
