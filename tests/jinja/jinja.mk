# Chat templates: the interpreter against Python's jinja2 on generated templates.
SUITES   += jinja
PACKAGES += packages-jinja
JINJA_TEMPLATES ?= 600
JINJA_OBJ := $(call obj,tests/jinja/render.cpp)
$(BUILD)/tests/jinja_render: $(JINJA_OBJ) $(HOST_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(LIBS) -o $@
test-jinja: $(BUILD)/tests/jinja_render ## chat templates against Python's jinja2 (JINJA_TEMPLATES=2000 for more)
	@tests/run-suite jinja tests/jinja/run $< $(JINJA_TEMPLATES)
.PHONY: test-jinja
-include $(patsubst %.o,%.d,$(JINJA_OBJ))
