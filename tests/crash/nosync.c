/* Preloaded: fsync and its kin do nothing, as if they had been forgotten. Shows that the test of power cuts can fail. */
int fsync(int fd);
int fdatasync(int fd);
int syncfs(int fd);

int fsync(int fd)
{
	(void)fd;
	return 0;
}

int fdatasync(int fd)
{
	(void)fd;
	return 0;
}

int syncfs(int fd)
{
	(void)fd;
	return 0;
}
