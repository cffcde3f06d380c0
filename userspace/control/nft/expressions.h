// nf_tables' expressions from netlink attributes (NFTA_RULE_EXPRESSIONS and the like).
//
// What an attribute means follows the dump functions in the kernel's net/netfilter/nft_*.c. An
// expression that the model has no struct for, or whose attributes are not all understood, comes
// out as UnsupportedExpr with its name; iptables' matches and targets with the extension's name too
// ("match conntrack", "target MASQUERADE").
//
// Thread: any; no state. Never fails: nonsense becomes an UnsupportedExpr as well.
#ifndef SLUICE_CONTROL_NFT_EXPRESSIONS_H_
#define SLUICE_CONTROL_NFT_EXPRESSIONS_H_

#include <linux/netlink.h>

#include <string>
#include <vector>

#include "control/nft/model.h"

namespace sluice::control::nft {

// A list of NFTA_LIST_ELEM; null is an empty list.
std::vector<Expr> ParseExpressions(const nlattr* list);
// One expression with its name (NFTA_EXPR_NAME, NFTA_EXPR_DATA).
Expr ParseExpression(const nlattr* expression);
// The data of an expression of this name; stateful objects have the same ones.
Expr ParseNamedExpression(const std::string& name, const nlattr* data);

}  // namespace sluice::control::nft

#endif  // SLUICE_CONTROL_NFT_EXPRESSIONS_H_
