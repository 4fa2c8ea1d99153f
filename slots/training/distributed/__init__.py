"""What a fit by several processes needs beside a fit by one."""
