// A library that the test library needs, as the real one needs those beside it.
int vixtest_beside(void);
int vixtest_beside(void) { return 1; }
