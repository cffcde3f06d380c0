// nf_tables' netlink messages (dumps and notifications) as parts of the model. One pass over the
// attributes of one message; nothing is kept.
//
// A Parse function answers nullopt for a message that is malformed or of a family that nf_tables
// does not have. What the messages contain: the fill functions in the kernel's
// net/netfilter/nf_tables_api.c.
//
// Thread: any; no state.
#ifndef SLUICE_CONTROL_NFT_MESSAGES_H_
#define SLUICE_CONTROL_NFT_MESSAGES_H_

#include <linux/netlink.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "base/time.h"
#include "control/nft/model.h"

namespace sluice::control::nft {

// NFT_MSG_* of a message of nf_tables, -1 for others.
int MessageKind(const nlmsghdr& message);

// NFTA_GEN_ID of a NFT_MSG_NEWGEN.
std::optional<uint32_t> ParseGeneration(const nlmsghdr& message);

std::optional<Table> ParseTable(const nlmsghdr& message);

struct ChainMessage {
  TableFamily family = TableFamily::kInet;
  std::string table;
  Chain chain;
};
std::optional<ChainMessage> ParseChain(const nlmsghdr& message);

struct RuleMessage {
  TableFamily family = TableFamily::kInet;
  std::string table;
  std::string chain;
  Rule rule;
  std::optional<uint64_t> after;  // the handle of the rule before this one, see ruleset_editor.h
  bool append = false;            // NLM_F_APPEND
};
std::optional<RuleMessage> ParseRule(const nlmsghdr& message);

struct SetMessage {
  TableFamily family = TableFamily::kInet;
  std::string table;
  Set set;  // without elements
};
std::optional<SetMessage> ParseSet(const nlmsghdr& message);

struct ElementsMessage {
  TableFamily family = TableFamily::kInet;
  std::string table;
  std::string set;
};
// What is left of a timeout counts from `now`. The message must have passed ParseElementsOf.
std::optional<ElementsMessage> ParseElementsOf(const nlmsghdr& message);
void ForEachElement(const nlmsghdr& message, Nanos now,
                    absl::FunctionRef<void(SetElement&& element)> visit);

struct ObjectMessage {
  TableFamily family = TableFamily::kInet;
  std::string table;
  Object object;
};
std::optional<ObjectMessage> ParseObject(const nlmsghdr& message);

}  // namespace sluice::control::nft

#endif  // SLUICE_CONTROL_NFT_MESSAGES_H_
