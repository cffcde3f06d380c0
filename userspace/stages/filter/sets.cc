// Sets and stateful statements: nft_lookup.c, nft_dynset.c, nft_objref.c, nft_limit.c, nft_quota.c,
// nft_connlimit.c, nft_last.c.
#include "stages/filter/evaluation.h"
#include "tables/ruleset/key_hash.h"

namespace sluice::stages {

using tables::DynamicSet;
using tables::DynsetOp;
using tables::ElementSet;
using tables::Op;
using tables::OpCode;
using tables::Overlay;
using tables::SetEvent;
using tables::StateCell;
using tables::StatefulExpr;
using tables::StatefulKind;

Evaluation::Found Evaluation::FindElement(uint32_t set, const uint8_t* key) {
  const ElementSet& elements = ruleset_.set(set);
  Found found;
  const uint8_t* value = nullptr;
  if (DynamicSet* dynamic = ruleset_.dynamic(set)) {
    Overlay& overlay = dynamic->worker(worker_);
    Overlay::Node* node = overlay.Find(key, context_.now);
    if (node != nullptr && !node->deleted) {
      found.found = true;
      found.data = overlay.Data(node);
      found.node = node;
      return found;
    }
    value = node != nullptr ? elements.catchall() : elements.Find(key, context_.now);
  } else {
    value = elements.Find(key, context_.now);
  }
  if (value == nullptr) return found;
  found.found = true;
  found.data = elements.Data(value);
  found.state = elements.State(value);
  return found;
}

// nft_set_elem_update_expr.
Evaluation::Step Evaluation::RunElement(uint32_t set, const Found& found) {
  if (found.node != nullptr) {
    if (found.node->exprs == 0) return Step::kNext;
    DynamicSet& dynamic = *ruleset_.dynamic(set);
    Overlay& overlay = dynamic.worker(worker_);
    const auto& exprs = dynamic.exprs(found.node->exprs);
    for (size_t i = 0; i < exprs.size(); ++i) {
      const uint64_t owner = tables::MixHash(
          dynamic.id(),
          tables::KeyHash(overlay.Key(found.node), (dynamic.shape().key_length + 3u) / 4 * 4));
      const Step step = Stateful(exprs[i], &found.node->cells[i], false, owner + i);
      if (step != Step::kNext) return step;
    }
    return Step::kNext;
  }
  if (found.state == nullptr) return Step::kNext;
  for (const StatefulExpr& expr : found.state->exprs) {
    const Step step = Stateful(expr, expr.cell, true, expr.owner);
    if (step != Step::kNext) return step;
  }
  return Step::kNext;
}

Evaluation::Step Evaluation::Lookup(const Op& op) {
  const Found found = FindElement(op.set, Reg(op.sreg));
  if (found.found == (op.flags != 0)) return Step::kBreak;
  if (!found.found) return Step::kNext;
  if (op.code == OpCode::kLookupVerdict) {
    tables::SetVerdict verdict;
    std::memcpy(&verdict, found.data, sizeof verdict);
    // The element's own statements may end the rule first.
    if (const Step step = RunElement(op.set, found); step != Step::kNext) return step;
    if (verdict.code == kContinue) return Step::kNext;
    if (verdict.code == kBreakCode) return Step::kBreak;
    return Verdict(verdict.code, verdict.chain);
  }
  if (op.dreg != tables::kNoUnit) std::memcpy(Reg(op.dreg), found.data, op.length);
  return RunElement(op.set, found);
}

Evaluation::Step Evaluation::ObjectMap(const Op& op) {
  const Found found = FindElement(op.set, Reg(op.sreg));
  if (!found.found) return Step::kBreak;
  return RunElement(op.set, found);
}

void Evaluation::Report(SetEvent::Kind kind, const DynamicSet& set, const uint8_t* key,
                        const uint8_t* data, Nanos timeout, bool has_statements) {
  SetEvent event;
  event.set = set.id();
  event.kind = kind;
  event.key_length = set.shape().key_length;
  event.data_length = data == nullptr ? 0 : set.shape().data_length;
  event.timeout = timeout;
  event.has_statements = has_statements;
  std::memcpy(event.key.data(), key, event.key_length);
  if (data != nullptr) std::memcpy(event.data.data(), data, event.data_length);
  if (!filter_.set_events_.TryPush(std::move(event))) filter_.set_events_lost_.Add();
}

// nft_dynset_eval.
Evaluation::Step Evaluation::Dynset(const Op& op) {
  const DynsetOp& dynset = program_.dynsets[op.a];
  DynamicSet& set = *ruleset_.dynamic(op.set);
  Overlay& overlay = set.worker(worker_);
  const ElementSet& base = ruleset_.set(op.set);
  const uint8_t* key = Reg(dynset.key);
  const bool dry = context_.dry_run;
  Overlay::Node* node = overlay.Find(key, context_.now);
  const uint8_t* value = base.Find(key, context_.now);
  if (value == base.catchall()) value = nullptr;

  if (dynset.kind == DynsetOp::Kind::kDelete) {
    if (dry || (node == nullptr ? value == nullptr : node->deleted)) return Step::kNext;
    if (node != nullptr) overlay.Remove(node);
    if (value != nullptr && (node = overlay.Insert(key, context_.now)) != nullptr) {
      node->deleted = true;
      overlay.SetExpiry(node, base.Expires(value));
    }
    Report(SetEvent::Kind::kDelete, set, key, nullptr, Nanos(), false);
    return Step::kNext;
  }

  const Nanos timeout = dynset.timeout_ms != 0
                            ? Millis(static_cast<int64_t>(dynset.timeout_ms))
                            : set.timeout();
  const auto done = [&](Step step) {
    if (step != Step::kNext) return step;
    return dynset.inverted ? Step::kBreak : Step::kNext;
  };
  const Step full = dynset.inverted ? Step::kNext : Step::kBreak;
  const bool update = dynset.kind == DynsetOp::Kind::kUpdate;
  if (node != nullptr && node->deleted) {
    if (!dry) overlay.Remove(node);
    node = nullptr;
    value = nullptr;
  }
  if (node == nullptr && value != nullptr && !(update && base.Expires(value) != Nanos() && !dry)) {
    return done(RunElement(op.set, {true, base.Data(value), base.State(value), nullptr}));
  }
  if (node == nullptr) {
    const auto is_full = [&] {
      return overlay.size() + base.size() >= set.shape().capacity &&
             overlay.SizeWith(&base, static_cast<uint32_t>(base.size()), [&](const uint8_t* k) {
               const uint8_t* const below = base.Find(k, context_.now);
               return below != nullptr && below != base.catchall();
             }) >= set.shape().capacity;
    };
    if (value == nullptr && is_full()) {
      overlay.Expire(context_.now, 64);
      if (is_full()) return full;
    }
    if (dry) {  // what a new element would say
      const auto& exprs = set.exprs(dynset.exprs);
      for (const StatefulExpr& expr : exprs) {
        StateCell cell;
        if (expr.kind == StatefulKind::kLimit) FillBucket(expr, cell, context_.now);
        if (const Step step = Stateful(expr, &cell, false, 0); step != Step::kNext) return step;
      }
      return done(Step::kNext);
    }
    node = overlay.Insert(key, context_.now);
    if (node == nullptr) return full;
    const uint8_t* data = dynset.data == tables::kNoUnit ? nullptr : Reg(dynset.data);
    if (value != nullptr) data = base.Data(value);
    if (data != nullptr) std::memcpy(overlay.Data(node), data, set.shape().data_length);
    node->exprs = dynset.exprs;
    const auto& exprs = set.exprs(dynset.exprs);
    for (size_t i = 0; i < exprs.size(); ++i) {
      if (exprs[i].kind == StatefulKind::kLimit) FillBucket(exprs[i], node->cells[i], context_.now);
    }
    if (timeout != Nanos()) overlay.SetExpiry(node, context_.now + timeout);
    Report(SetEvent::Kind::kAdd, set, key, data, timeout, node->exprs != 0);
  } else if (update && timeout != Nanos() && !dry) {
    const bool worth_telling = node->expires - context_.now.count() < timeout.count() / 2;
    overlay.SetExpiry(node, context_.now + timeout);
    if (worth_telling) {
      Report(SetEvent::Kind::kUpdate, set, key,
             set.shape().data_length == 0 ? nullptr : overlay.Data(node), timeout,
             node->exprs != 0);
    }
  }
  return done(RunElement(op.set, {true, overlay.Data(node), nullptr, node}));
}

Evaluation::Step Evaluation::Stateful(const StatefulExpr& expr, StateCell* cell, bool shared,
                                      uint64_t owner) {
  const bool dry = context_.dry_run;
  const auto matches = [](bool yes) { return yes ? Step::kNext : Step::kBreak; };
  const uint32_t bytes = context_.p.l3_length();
  StateCell& own = shared ? tables::WorkerCell(cell, worker_) : *cell;
  switch (expr.kind) {
    case StatefulKind::kCounter:
      if (!dry) {
        StateCell::Add(own.a, 1);
        StateCell::Add(own.b, bytes);
      }
      return Step::kNext;
    case StatefulKind::kLimit:
      // One bucket for all workers: that of worker 0.
      return matches(TakeTokens(expr, *cell, context_.now, LimitCost(expr, bytes), dry) !=
                     expr.inverted);
    case StatefulKind::kQuota: {
      uint64_t consumed = bytes;
      if (!shared) {
        consumed += own.a.load(std::memory_order_relaxed);
      } else {
        for (uint32_t w = 0; w < program_.workers; ++w) {
          consumed += tables::WorkerCell(cell, w).a.load(std::memory_order_relaxed);
        }
      }
      if (!dry) StateCell::Add(own.a, bytes);
      return matches((consumed > expr.quota) == expr.inverted);
    }
    case StatefulKind::kConnections:
      return CountConnections(expr, own, owner);
    case StatefulKind::kLast:
      if (!dry) {
        own.a.store(static_cast<uint64_t>(context_.now.count()), std::memory_order_relaxed);
      }
      return Step::kNext;
  }
  return Step::kNext;
}

// nft_connlimit_do_eval.
Evaluation::Step Evaluation::CountConnections(const StatefulExpr& expr, StateCell& own,
                                              uint64_t owner) {
  tables::ConnectionCounts::Connection connection;
  bool peek = context_.dry_run;
  if (context_.flow != nullptr) {
    connection.flow = context_.p.flow;
    connection.fingerprint = tables::TupleFingerprint(
        context_.flow->tuple(tables::FlowDirection::kOriginal));
  } else {
    peek = true;  // untracked: there is nothing that could end
  }
  const ConnectionView* view = context_.connections;
  const auto alive = [view](const tables::ConnectionCounts::Connection& c) {
    return view == nullptr || view->IsAlive(c.flow, c.fingerprint);
  };
  const uint32_t count = filter_.connection_counts_.Add(
      owner, connection, static_cast<uint32_t>(expr.quota), context_.now, alive, peek);
  if (!context_.dry_run) own.a.store(count, std::memory_order_relaxed);
  return (count > expr.quota) == expr.inverted ? Step::kNext : Step::kBreak;
}

}  // namespace sluice::stages
