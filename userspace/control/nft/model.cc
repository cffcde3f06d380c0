#include "control/nft/model.h"

#include <algorithm>

namespace sluice::control::nft {
namespace {

// Shared by const and non-const lookups.
template <class List>
auto* FindNamed(List& list, const std::string& name) {
  const auto found =
      std::find_if(list.begin(), list.end(), [&](const auto& item) { return item.name == name; });
  return found == list.end() ? nullptr : &*found;
}

template <class R>
auto* FindTableIn(R& ruleset, TableFamily family, const std::string& name) {
  const auto found =
      std::find_if(ruleset.tables.begin(), ruleset.tables.end(), [&](const Table& table) {
        return table.family == family && table.name == name;
      });
  return found == ruleset.tables.end() ? nullptr : &*found;
}

}  // namespace

bool DynsetExpr::operator==(const DynsetExpr& o) const {
  return set == o.set && op == o.op && sreg_key == o.sreg_key && sreg_data == o.sreg_data &&
         timeout_ms == o.timeout_ms && inverted == o.inverted && SameExprs(exprs, o.exprs);
}

bool SameExpr(const Expr& a, const Expr& b) {
  const auto* x = std::get_if<std::shared_ptr<const DynsetExpr>>(&a);
  const auto* y = std::get_if<std::shared_ptr<const DynsetExpr>>(&b);
  if (x == nullptr || y == nullptr || *x == nullptr || *y == nullptr) return a == b;
  return **x == **y;
}

bool SameExprs(const std::vector<Expr>& a, const std::vector<Expr>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), SameExpr);
}

bool SameElement(const SetElement& a, const SetElement& b) {
  return a.key == b.key && a.key_end == b.key_end && a.interval_end == b.interval_end &&
         a.catchall == b.catchall && a.data == b.data && a.verdict == b.verdict &&
         a.object == b.object && a.timeout_ms == b.timeout_ms && SameExprs(a.exprs, b.exprs);
}

bool SameElements(const Set& a, const Set& b) {
  return std::equal(a.elements.begin(), a.elements.end(), b.elements.begin(), b.elements.end(),
                    SameElement);
}

const char* FamilyName(TableFamily family) {
  switch (family) {
    case TableFamily::kInet:
      return "inet";
    case TableFamily::kIp:
      return "ip";
    case TableFamily::kArp:
      return "arp";
    case TableFamily::kNetdev:
      return "netdev";
    case TableFamily::kBridge:
      return "bridge";
    case TableFamily::kIp6:
      return "ip6";
  }
  return "unknown";
}

const Table* FindTable(const Ruleset& ruleset, TableFamily family, const std::string& name) {
  return FindTableIn(ruleset, family, name);
}
Table* FindTable(Ruleset& ruleset, TableFamily family, const std::string& name) {
  return FindTableIn(ruleset, family, name);
}
const Chain* FindChain(const Table& table, const std::string& name) {
  return FindNamed(table.chains, name);
}
Chain* FindChain(Table& table, const std::string& name) { return FindNamed(table.chains, name); }

}  // namespace sluice::control::nft
