# The report as a page, looked at in a browser: a real job's, a very large one's and one of hostile names.
SUITES   += report-html
PACKAGES += $(if $(filter ubuntu,$(shell . /etc/os-release 2>/dev/null && echo $$ID)),,packages-browser)
LARGE_REPORT     := $(BUILD)/tests/large_report
LARGE_REPORT_OBJ := $(call obj,tests/report_html/large_report.cpp)
$(LARGE_REPORT): $(LARGE_REPORT_OBJ) $(HOST_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(LIBS) -o $@
-include $(LARGE_REPORT_OBJ:.o=.d)

test-report-html: all $(LARGE_REPORT) ## report.html in headless Chromium at 800 and 1,600 pixels, light and dark (KEEP=FOLDER keeps the pages and their pictures)
	@tests/run-suite report-html tests/report_html/run $(BUILD)/moerun $(LARGE_REPORT) $(KEEP)
.PHONY: test-report-html
