// A page that costs something to write, kept for a moment: whoever asks as often as he can has the same
// one again.
//
// Thread: one. Others may hold pages, and let go of them; the last to let go of one is this thread.
#ifndef SLUICE_APP_PAGE_CACHE_H_
#define SLUICE_APP_PAGE_CACHE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/time.h"

namespace sluice::app {

class PageCache {
 public:
  using Page = std::shared_ptr<const std::string>;
  static constexpr Nanos kLifetime = Millis(250);

  Page Get(const std::function<std::string()>& render, Nanos now) {
    Forget();
    if (page_ == nullptr || now - written_ >= kLifetime) {
      if (page_ != nullptr) old_.push_back(std::move(page_));
      page_ = std::make_shared<const std::string>(render());
      written_ = now;
    }
    return page_;
  }

  // Frees old ones that nobody else holds any more.
  void Forget() {
    std::erase_if(old_, [](const Page& p) { return p.use_count() == 1; });
  }
  size_t old() const { return old_.size(); }

 private:
  Page page_;  // null: none yet
  Nanos written_;
  std::vector<Page> old_;
};

}  // namespace sluice::app

#endif  // SLUICE_APP_PAGE_CACHE_H_
