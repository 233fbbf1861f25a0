#include "report/page/frame.h"

#include <fmt/format.h>

#include "moerun/file_names.h"
#include "report/html_text.h"
#include "report/page/style.h"

namespace moerun {

std::string page_begin(const std::string& title) {
  return fmt::format(
      R"({}<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{}</title>
<style>{}</style></head>
<body>
<h1>{}</h1>
)",
      kReportHtmlBegin, escaped(title), kPageStyle, escaped(title));
}

std::string page_end(const std::string& program) {
  return "<footer>" + escaped(program) + "</footer>\n</body></html>\n";
}

}  // namespace moerun
